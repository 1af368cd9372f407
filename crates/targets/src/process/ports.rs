//! Finds ports for instances: free now, and outside the kernel's ephemeral range, where outgoing connections of a busy proxy
//! would sooner or later take the port of an instance before it listens.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

/// First port for instances, if the ephemeral range leaves room.
const FIRST: u16 = 20_000;
/// Ports to try before taking any port from the kernel.
const TRIES: usize = 200;

/// A free loopback port that isn't among `taken`. If another process takes it first, the instance exits and gets another port at
/// its next start.
pub(super) fn find_free_port(taken: &BTreeSet<u16>) -> io::Result<u16> {
    let range = FIRST..kernel_range_start();
    for port in candidate_ports(&range)? {
        if !taken.contains(&port) && is_port_free(port) {
            return Ok(port);
        }
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(any.local_addr()?.port())
}

/// A part of the range, from a random start: two servers on one machine rarely try the same ports.
fn candidate_ports(range: &Range<u16>) -> io::Result<impl Iterator<Item = u16> + use<>> {
    let mut random = [0; 2];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let length = usize::from(range.end.saturating_sub(range.start));
    let begin = usize::from(u16::from_ne_bytes(random)).checked_rem(length);
    let start = usize::from(range.start);
    let nth = move |step: usize| u16::try_from(start + (begin? + step) % length).ok();
    Ok((0..length.min(TRIES)).filter_map(nth))
}

fn kernel_range_start() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = text
        .split_whitespace()
        .next()
        .and_then(|it| it.parse().ok());
    first.unwrap_or(32_768)
}

fn is_port_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_or_listened_on_is_not_given() {
        let mut taken = BTreeSet::new();
        for _ in 0..50 {
            let port = find_free_port(&taken).unwrap();
            assert!(taken.insert(port), "{port} was given twice");
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_port_free(listener.local_addr().unwrap().port()));
    }

    #[test]
    fn candidates_stay_within_the_range_and_an_empty_range_has_none() {
        let all: BTreeSet<u16> = candidate_ports(&(20_000..20_010)).unwrap().collect();
        assert_eq!(all, (20_000..20_010).collect());
        assert_eq!(candidate_ports(&(20_000..20_000)).unwrap().count(), 0);
    }
}
