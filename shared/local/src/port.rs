//! Free TCP ports on loopback that stay free for their holder.
//!
//! A port that was merely found free may be taken by somebody else before the
//! server binds it, or while the server is stopped. So each port is claimed: the
//! UDP port of the same number is held for as long as the [`Port`] lives. UDP
//! and TCP ports are apart, every user of this crate claims first, and a claim
//! ends with its process, so no lock file can be left behind.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::error::{Error, Result};

/// Below the range from which Linux takes ports for outgoing connections
/// (32768 and up by default), so a client's own port cannot be in the way.
const RANGE: std::ops::Range<u16> = 15_000..30_000;
const ATTEMPTS: usize = 200;

/// A claimed TCP port on 127.0.0.1.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UdpSocket,
}

impl Port {
    /// Claims a port that nobody listens on.
    pub fn claim() -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let number = rand::random_range(RANGE);
            let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _claim: claim });
            }
        }
        Err(Error::Invalid(format!(
            "no free port between {} and {} on 127.0.0.1 after {ATTEMPTS} attempts",
            RANGE.start, RANGE.end
        )))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_is_given_to_nobody_else_and_can_be_bound() {
        let ports: Vec<Port> = (0..50).map(|_| Port::claim().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
        TcpListener::bind((Ipv4Addr::LOCALHOST, numbers[0])).unwrap();
    }
}
