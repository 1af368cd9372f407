//! The proxy as a program of its own, with the flags of `shipway proxy`: for the bench, and for whoever wants only the data plane.
//!
//! ```sh
//! cargo run --release -p shipway-proxy --example proxy -- --listen 127.0.0.1:8080 --control /tmp/p.sock --state /tmp/p --workers 1
//! ```

use std::process::ExitCode;

use shipway_proxy::Options;

fn main() -> ExitCode {
    match options()
        .map_err(|flag| format!("{flag} is unknown or has no value"))
        .and_then(run)
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("proxy: {why}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        listen: Vec::new(),
        control: "proxy.sock".into(),
        state: "proxy".into(),
        workers: 0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| flag.clone())?;
        match flag.as_str() {
            "--listen" => options.listen.push(value.parse().map_err(|_| flag)?),
            "--control" => options.control = value.into(),
            "--state" => options.state = value.into(),
            "--workers" => options.workers = value.parse().map_err(|_| flag)?,
            _ => return Err(flag),
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(shipway_proxy::run(options, |addresses| {
            println!("listening on {addresses:?}")
        }))
        .map_err(|error| error.to_string())
}
