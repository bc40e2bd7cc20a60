//! How often an address may ask before it is known who asks, and which address that is.
//!
//! Addresses are whatever clients have, so what is remembered of them is bounded: two generations of at most so many each; when the
//! younger is full it becomes the older, and what was the older is forgotten. An IPv6 address counts as its /64 network, which is
//! what one client is given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::config::Address;
use super::meter::{Meter, Rate, Wait};
use super::network::Network;
use super::refusal::{Bound, Measure, Refusal, Scope};

#[derive(Debug, Clone, Copy, Default)]
struct Visitor {
    requests: Meter,
    wrong_keys: Meter,
}

#[derive(Debug, Default)]
pub struct Addresses {
    young: HashMap<IpAddr, Visitor>,
    old: HashMap<IpAddr, Visitor>,
    forgotten: u64,
}

fn requests(config: &Address) -> Option<Rate> {
    let most = config.requests_per_second?;
    Some(Rate::per_second(most.into(), config.burst.unwrap_or(most).max(1).into()))
}

fn wrong_keys(config: &Address) -> Option<Rate> {
    // Were none allowed, one slip of the pen would shut an address out for ever.
    let most = u64::from(config.wrong_keys_per_minute?.max(1));
    Some(Rate::per_minute(most, most))
}

impl Addresses {
    /// A request has come.
    ///
    /// # Errors
    /// When it may not be looked at yet. It then costs nothing.
    pub fn admit(&mut self, address: IpAddr, config: &Address, now_ns: u64) -> Result<(), Refusal> {
        let address = network_of(address);
        if let Some(rate) = wrong_keys(config) {
            let visitor = self.find(&address);
            let bound = Bound::of_meter(Scope::Address, Measure::WrongKeysPerMinute, &visitor.wrong_keys, rate, 1, now_ns);
            if bound.wait != Wait::Free {
                return Err(Refusal::of(bound));
            }
        }
        let Some(rate) = requests(config) else { return Ok(()) };
        let visitor = self.open(address, config.max_addresses);
        let mut bound = Bound::of_meter(Scope::Address, Measure::RequestsPerSecond, &visitor.requests, rate, 1, now_ns);
        if config.requests_per_second == Some(0) {
            bound.close();
        }
        if bound.wait != Wait::Free {
            return Err(Refusal::of(bound));
        }
        visitor.requests.add(rate, 1, now_ns);
        Ok(())
    }

    /// A request came with a key that is none.
    pub fn wrong_key(&mut self, address: IpAddr, config: &Address, now_ns: u64) {
        if let Some(rate) = wrong_keys(config) {
            self.open(network_of(address), config.max_addresses).wrong_keys.add(rate, 1, now_ns);
        }
    }

    /// How many addresses were forgotten to make room, since this was last asked.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    fn find(&self, address: &IpAddr) -> Visitor {
        self.young.get(address).or_else(|| self.old.get(address)).copied().unwrap_or_default()
    }

    fn open(&mut self, address: IpAddr, most: usize) -> &mut Visitor {
        let visitor = self.find(&address);
        if !self.young.contains_key(&address) && self.young.len() >= most.max(1) {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.forgotten = self.forgotten.saturating_add(forgotten.len() as u64);
        }
        self.young.entry(address).or_insert(visitor)
    }
}

/// What counts as one address.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// The client behind a connection: its peer or, where that is a trusted proxy, the last address in its `X-Forwarded-For` that is
/// not one. What stands before that may be made up by the client.
#[must_use]
pub fn client(peer: IpAddr, forwarded_for: &str, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    for hop in forwarded_for.rsplit(',').map(str::trim) {
        if !is_trusted(client) {
            break;
        }
        let Some(address) = address_in(hop) else { break };
        client = address.to_canonical();
    }
    client
}

/// An address as proxies write it: bare, in brackets, with a port.
fn address_in(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    hop.parse().ok().or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::refusal::Kind;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_flood_of_wrong_keys_is_held_back_and_the_others_are_not() {
        let config = Address { wrong_keys_per_minute: Some(6), ..Address::default() };
        let mut addresses = Addresses::default();
        for _ in 0..6 {
            addresses.admit(ip("10.0.0.1"), &config, 0).expect("not yet");
            addresses.wrong_key(ip("10.0.0.1"), &config, 0);
        }
        let refusal = addresses.admit(ip("::ffff:10.0.0.1"), &config, 0).expect_err("enough");
        assert_eq!((refusal.kind, refusal.retry_after), (Kind::AddressRate, Some(Duration::from_secs(10))));
        addresses.admit(ip("10.0.0.2"), &config, 0).expect("someone else");
        assert!(addresses.admit(ip("10.0.0.1"), &config, 10 * SECOND - 1).is_err());
        addresses.admit(ip("10.0.0.1"), &config, 10 * SECOND).expect("waited");
    }

    #[test]
    fn requests_have_a_rate_and_a_network_of_ipv6_is_one_client() {
        let config = Address { requests_per_second: Some(2), ..Address::default() };
        let mut addresses = Addresses::default();
        addresses.admit(ip("2001:db8::1"), &config, 0).expect("the first");
        addresses.admit(ip("2001:db8::2"), &config, 0).expect("the second");
        let refusal = addresses.admit(ip("2001:db8::3"), &config, 0).expect_err("the third");
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(500)));
        addresses.admit(ip("2001:db8:0:1::1"), &config, 0).expect("another network");
        addresses.admit(ip("2001:db8::3"), &config, SECOND / 2).expect("waited");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_latest_are_remembered() {
        let config = Address { requests_per_second: Some(1), max_addresses: 10, ..Address::default() };
        let mut addresses = Addresses::default();
        for n in 0..100 {
            addresses.admit(IpAddr::from([10, 0, 0, n]), &config, 0).expect("its first");
            assert!(addresses.young.len() + addresses.old.len() <= 20);
            assert!(addresses.admit(IpAddr::from([10, 0, 0, n.saturating_sub(4)]), &config, 0).is_err(), "the latest are known");
        }
        assert!(addresses.take_forgotten() >= 80);
        assert_eq!(addresses.take_forgotten(), 0);
    }

    #[test]
    fn without_a_rate_nobody_is_remembered_for_merely_asking() {
        let mut addresses = Addresses::default();
        for n in 0..100 {
            addresses.admit(IpAddr::from([10, 0, 0, n]), &Address::default(), 0).expect("unbounded");
        }
        assert!(addresses.young.is_empty() && addresses.old.is_empty());
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<Network> = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect("a network")).to_vec();
        for (peer, forwarded, expected) in [
            ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
            ("10.0.0.1", "6.6.6.6, unknown", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
        ] {
            assert_eq!(client(ip(peer), forwarded, &trusted), ip(expected), "{peer} {forwarded}");
        }
    }
}
