//! The configuration that the pages of `docs/` show is read without a mistake.

use shipway_syntax::SourceFile;

use super::{StickyKey, StickyScope, parse, tests::problems};

#[test]
fn every_piece_of_the_page_about_rollouts_is_read() {
    let page = include_str!("../../../../docs/rollouts.md");
    let pieces: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(pieces.len() >= 9, "{}", pieces.len());
    for piece in pieces {
        let below: String = piece.lines().map(|line| format!("    {line}\n")).collect();
        let text = match piece.starts_with("run:") {
            true => format!("service: shop\n{piece}\nenvironments: {{ production: {{}} }}"),
            false => format!(
                "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production:\n{below}"
            ),
        };
        assert_eq!(problems(&text), Vec::<String>::new(), "{piece}");
    }
}

#[test]
fn every_file_of_the_page_about_apps_is_read() {
    let page = include_str!("../../../../docs/real-apps.md");
    let files = page.split("```yaml\n").skip(1);
    let files: Vec<&str> = files
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(files.len() >= 2, "{}", files.len());
    for file in files {
        assert_eq!(problems(file), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn the_file_of_the_page_about_repositories_is_read() {
    let page = include_str!("../../../../docs/repositories.md");
    let files: Vec<&str> = page.split("```yaml\n").skip(1).collect();
    assert_eq!(files.len(), 1);
    let file = files[0].split("```").next().unwrap();
    assert_eq!(problems(file), Vec::<String>::new());
}

#[test]
fn users_are_kept_on_the_release_or_on_an_instance() {
    let read = |sticky: &str| {
        let text = format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ sticky: {sticky} }}\n"
        );
        let config = parse(&SourceFile::new("shipway.yaml", text.as_str()));
        let environment = config.unwrap().0.environments.remove(0);
        (environment.sticky, environment.sticky_to)
    };
    let cookie = |name: &str| StickyKey::Cookie(name.to_owned());
    for (text, wanted) in [
        ("cookie", (cookie("shipway"), StickyScope::Release)),
        ("{ cookie: cart }", (cookie("cart"), StickyScope::Release)),
        (
            "{ cookie: cart, to: instance }",
            (cookie("cart"), StickyScope::Instance),
        ),
        (
            "{ to: instance }",
            (cookie("shipway"), StickyScope::Instance),
        ),
        (
            "{ header: X-Tenant, to: instance }",
            (
                StickyKey::Header("x-tenant".to_owned()),
                StickyScope::Instance,
            ),
        ),
    ] {
        assert_eq!(read(text), wanted, "{text}");
    }
    let told = problems(
        "service: shop\nrun: { command: ./shop }\nenvironments:\n  production: { sticky: { to: machine } }\n",
    );
    assert!(
        told[0].contains("`to` must be one of release, instance, but this is `machine`"),
        "{told:?}"
    );
}
