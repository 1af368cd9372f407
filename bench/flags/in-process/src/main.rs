//! Measures in-process evaluation, with flagd's Rust evaluator and datalogic-rs in the same run.

use std::hint::black_box;
use std::time::Duration;

use flagd_evaluation_engine::{FlagParser, Operator};
use serde_json::{Value, json};
use shipway_flags::{EvaluationContext, FlagSet};

const ROUNDS: usize = 15;
const ROUND_TIME: Duration = Duration::from_millis(100);
const FLAGS: usize = 10_000;

fn main() {
    let file = flag_file();
    let load = best_time(|| FlagSet::parse(black_box(&file)).expect("a valid file"));
    let peer_load = best_time(|| FlagParser::parse_string(black_box(&file)).expect("a valid file"));
    println!("{FLAGS} flags, {:.1} MB of JSON; medians and bests of {ROUNDS} rounds", file.len() as f64 / 1e6);
    print_line("load 10,000 flags", load, 100e6, &[("flagd-evaluation-engine, rules not compiled", peer_load)]);

    let set = FlagSet::parse(&file).expect("a valid file");
    let parsed = FlagParser::parse_string(&file).expect("a valid file");
    let context = EvaluationContext::from_value(attributes(), 1_764_547_200).expect("a valid context");
    for (name, key, target_ns) in [
        ("static", "static-5000", 200.0),
        ("targeting", "targeting-5001", 3_000.0),
        ("fractional", "fractional-5002", 1_500.0),
    ] {
        let ours = best_time(|| set.evaluate(black_box(key), black_box(&context)).expect("a result").value);
        let mut peers = Vec::new();
        let flag = &parsed.flags[key];
        if let Some(rule) = flag.targeting.as_ref().filter(|rule| **rule != json!({})) {
            let operator = Operator::new();
            let peer_context = peer_context();
            let rule_text = flag.get_targeting();
            peers.push(("flagd-evaluation-engine", best_time(|| {
                operator.apply(black_box(key), &rule_text, &peer_context).expect("a result")
            })));
            peers.push(("datalogic-rs, rule compiled, context converted", time_datalogic(rule, key)));
        }
        print_line(name, ours, target_ns, &peers);
    }
    let small = best_time(|| set.evaluate_all(black_box(&context)).filter(|(_, result)| result.is_ok()).count());
    print_line("all 10,000 flags, for each", small.map(|ns| ns / FLAGS as f64), 1_000.0, &[]);
}

/// A third each: static flags, rules with five conditions, percentages.
fn flag_file() -> String {
    let flags: serde_json::Map<String, Value> = (0..FLAGS)
        .map(|number| {
            let (name, targeting) = match number % 3 {
                2 => ("static", json!({})),
                0 => ("targeting", json!({"if": [
                    {"and": [{"==": [{"var": "tier"}, "premium"]}, {">": [{"var": "score"}, 90]}]}, "on",
                    {"and": [{"in": [{"var": "region"}, ["eu-1", "eu-2", "us-east"]]},
                        {"ends_with": [{"var": "email"}, "@example.com"]},
                        {"sem_ver": [{"var": "version"}, ">=", "1.4.0"]}]}, "on",
                    "off"]})),
                _ => ("fractional", json!({"fractional": [["on", 10], ["off", 90]]})),
            };
            let flag = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
                "targeting": targeting, "metadata": {"team": "shop"}});
            (format!("{name}-{number}"), flag)
        })
        .collect();
    serde_json::to_string_pretty(&json!({ "flags": flags })).expect("values are JSON")
}

fn attributes() -> Value {
    json!({"targetingKey": "user-123", "tier": "premium", "region": "us-east", "score": 85, "email": "ada@example.com", "version": "1.5.2"})
}

fn peer_context() -> open_feature::EvaluationContext {
    let context = open_feature::EvaluationContext::default().with_targeting_key("user-123");
    let attributes = attributes();
    attributes.as_object().into_iter().flatten().fold(context, |context, (name, value)| match value {
        Value::String(text) if name != "targetingKey" => context.with_custom_field(name, text.clone()),
        Value::Number(number) => context.with_custom_field(name, number.as_i64().unwrap_or(0)),
        _ => context,
    })
}

fn time_datalogic(rule: &Value, key: &str) -> [f64; 2] {
    let engine = datalogic_rs::Engine::builder().build();
    let compiled = engine.compile(&rule.to_string()).expect("a valid rule");
    let mut context = attributes();
    context["$flagd"] = json!({"flagKey": key, "timestamp": 1_764_547_200});
    let text = context.to_string();
    let mut session = engine.session();
    best_time(|| session.eval_str(&compiled, black_box(&text)).expect("a result"))
}

/// Median and best nanoseconds of the CPU for one call: on a busy machine the clock counts other programs too.
fn best_time<T>(mut call: impl FnMut() -> T) -> [f64; 2] {
    let start = cpu_time();
    black_box(call());
    let once = (cpu_time() - start).max(Duration::from_nanos(20));
    let calls = (ROUND_TIME.as_nanos() / once.as_nanos()).clamp(1, 5_000_000) as u32;
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = cpu_time();
            for _ in 0..calls {
                black_box(call());
            }
            (cpu_time() - start).as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    [rounds[ROUNDS / 2], rounds[0]]
}

/// What the scheduler has given this thread. The kernel brings it up to date when the thread is switched or asks for it.
fn cpu_time() -> Duration {
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let nanoseconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first field is a number"))
}

fn print_line(name: &str, [median, best]: [f64; 2], target_ns: f64, peers: &[(&str, [f64; 2])]) {
    println!("{name}: {} (best {}), target {}, ratio {:.1}", show(median), show(best), show(target_ns), target_ns / median);
    for (peer, [median_peer, best_peer]) in peers {
        println!("  {peer}: {} (best {}), {:.1} times ours", show(*median_peer), show(*best_peer), median_peer / median);
    }
}

fn show(ns: f64) -> String {
    match ns {
        ns if ns >= 1e6 => format!("{:.1} ms", ns / 1e6),
        ns if ns >= 1e3 => format!("{:.2} µs", ns / 1e3),
        ns => format!("{ns:.0} ns"),
    }
}
