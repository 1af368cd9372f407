//! `shipway watch` on a live terminal, as a person sees it.

use std::process::{Child, Stdio};

use crate::{
    evidence::{repository, ship},
    load::Load,
    screen::OnTerminal,
    shop::Shop,
    site::{SHIPWAY, Site, said, until},
    words::{assert_says, assert_silent_of},
};

/// A canary that is held for as long as a test looks, with its load.
fn held() -> (Site, Shop, Load, Child) {
    let site = Site::started();
    let environment =
        "    strategy: { canary: { steps: [{ weight: 30%, hold: 10m }], min_hold: 10m } }
    analysis: [{ metric: error-rate, worse_than: stable }, { metric: latency-p99, max: 10s }]";
    let shop = repository(&site, "shop", environment);
    assert_says(&ship(&shop, "1.0", "0.05"), &["#1 serves production"]);
    let load = Load::steady(&format!("http://{}/shop/", site.proxy), 100);
    until("the load to be steady", || load.of("1.0") > 100);
    shop.write("MOOD", "0.05\n");
    let push = shop.ship_begun("1.1");
    until("the canary to be judged", || {
        let page = site.get("/api/v1/rollouts/shop/2");
        page.is_some_and(|it| it["judgement"]["verdict"] == "pass")
    });
    (site, shop, load, push)
}

fn is_braille(line: &str) -> bool {
    line.contains(|it: char| ('\u{2801}'..='\u{28ff}').contains(&it))
}

/// Whole plots: a legend, the highest value below it, dots, and the weights at last.
fn plots(lines: &[String]) -> usize {
    let legends = lines.iter().enumerate().filter(|(place, line)| {
        let below = &lines[place + 1..];
        let weights = below.iter().position(|it| it.starts_with("  weight "));
        line.starts_with("error-rate: ")
            && below.first().is_some_and(|it| it.starts_with("    "))
            && weights.is_some_and(|end| below[..end].iter().any(|it| is_braille(it)))
    });
    legends.count()
}

/// Waits until the plot is drawn as wide as there is room for, and looks at each picture on the way.
#[track_caller]
fn drawn(terminal: &OnTerminal, columns: usize, rows: usize, has_been_smaller: bool) {
    until(&format!("a plot on {columns}x{rows}"), || {
        terminal.look(|screen| screen.frames.iter().filter(|it| plots(it) == 1).count() >= 3)
    });
    let screen = terminal.look(|screen| screen.clone());
    for frame in &screen.frames {
        assert!(plots(frame) <= 1, "{}", frame.join("\n"));
        // What has left a screen at its top before it could be taken away comes back with a larger screen.
        let moving = frame.iter().filter(|it| it.contains(" holding · "));
        assert!(
            moving.count() <= 1 || has_been_smaller,
            "{}",
            frame.join("\n")
        );
    }
    let last = screen.frames.last().unwrap();
    let weight = last.iter().rfind(|it| it.starts_with("  weight ")).unwrap();
    assert_eq!(weight.chars().count(), (columns - 1).min(110), "{weight}");
    let story = |line: &&String| line.contains("shift traffic: 30% to #2, 70% to #1");
    let words = last.join(" ");
    assert!(words.contains("error-rate"), "{words}");
    if columns >= 80 {
        assert_eq!(last.iter().filter(story).count(), 1, "{}", last.join("\n"));
        assert_eq!(screen.folded, 0, "{}", last.join("\n"));
    }
    assert!(screen.strange.is_empty(), "{:?}", screen.strange);
    assert_eq!(screen.column(), 0);
    assert!(!screen.inked);
}

#[test]
fn a_canary_is_drawn_on_terminals_of_any_size_and_leaves_them_as_they_were() {
    let (site, _shop, load, mut push) = held();
    let server = site.url("");
    let watch = ["--server", &server, "watch", "shop/ro2"];
    let mut terminal = OnTerminal::start(80, 24, &[], &watch);
    drawn(&terminal, 80, 24, false);
    terminal.resize(120, 40);
    drawn(&terminal, 120, 40, false);
    for (columns, rows) in [(60, 24), (40, 20), (120, 40)] {
        terminal.resize(columns, rows);
        drawn(&terminal, columns, rows, true);
    }
    // Too low for a plot: what is said has the room, and the terminal doesn't scroll.
    terminal.resize(40, 8);
    until("some pictures without a plot", || {
        terminal.look(|screen| screen.frames.iter().filter(|it| plots(it) == 0).count() >= 4)
    });
    let lines = terminal.look(|screen| (screen.frames.clear(), screen.text().len()).1);
    until("more of them", || {
        terminal.look(|screen| screen.frames.len() >= 4)
    });
    assert_eq!(
        terminal.look(|screen| screen.text().len()),
        lines,
        "it scrolls"
    );
    terminal.interrupt();
    let (how, screen) = terminal.end();
    assert_eq!(how, "signal 2 sane");
    assert!(screen.was_inked && !screen.inked && screen.strange.is_empty());

    let plain = OnTerminal::start(80, 24, &[("NO_COLOR", "1")], &watch);
    drawn(&plain, 80, 24, false);
    assert!(!plain.look(|screen| screen.was_inked), "NO_COLOR");
    drop(plain);

    // One that can't go back is told line by line.
    let dumb = OnTerminal::start(80, 24, &[("TERM", "dumb")], &watch);
    until("the story", || {
        dumb.look(|screen| screen.text().join("\n").contains("shift traffic: 30%"))
    });
    // To its end: on a terminal with the plot as it came out, elsewhere without.
    let seen_to_the_end = OnTerminal::start(80, 24, &[], &watch);
    drawn(&seen_to_the_end, 80, 24, false);
    let piped = std::process::Command::new(SHIPWAY)
        .args(watch)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    said(&site.shipway(&["abort", "shop/ro2", "--reason", "seen enough"]));
    let (how, screen) = dumb.end();
    assert_eq!(how, "code 1 sane");
    assert!(!screen.was_inked && screen.frames.is_empty() && screen.strange.is_empty());
    assert_eq!(plots(&screen.text()), 0);
    let (how, screen) = seen_to_the_end.end();
    assert_eq!(how, "code 1 sane");
    let text = screen.text();
    assert_eq!(plots(&text), 1, "{}", text.join("\n"));
    assert_says(&text.join("\n"), &["rolling back: seen enough"]);
    assert_silent_of(&text.join("\n"), &[" holding · "]);
    let piped = piped.wait_with_output().unwrap();
    let told = said(&piped);
    assert_says(&told, &["rolling back: seen enough"]);
    assert!(!told.contains('\u{1b}') && !is_braille(&told), "{told}");
    push.wait().unwrap();
    load.stop();
}
