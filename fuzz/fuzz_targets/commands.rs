#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shipway_worker::fuzz::commands(data));
