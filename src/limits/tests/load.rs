//! Many requests, in any order: nothing leaks and nothing is miscounted.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reconfiguring_under_load_leaks_nothing() {
    let World { limits, .. } = &world(Config::default()).await;
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || {
                let who = holder(&format!("k{}", thread % 2), "t");
                for n in 0..5_000 {
                    let Ok(mut reservation) = limits.admit(&who, &estimate(n % 7, n % 5)) else { continue };
                    reservation.settle(1, 1);
                }
            });
        }
        for n in 0..500 {
            let allowance =
                Allowance { concurrent_requests: (n % 3 > 0).then_some(n % 3), generated_tokens_per_minute: Some(n.into()), ..none() };
            limits.reconfigure(Config { global: allowance.clone(), ..keys(allowance) });
        }
    });
    let (accounts, _) = limits.all(100, |_| None, &Allowance::default());
    assert!(accounts.iter().all(|account| account.running == 0 && account.reserved_tokens == 0), "{accounts:?}");
    assert_eq!(accounts.len(), 4);
}

/// A small generator of its own, so that the same seed means the same run for ever (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[tokio::test]
async fn after_a_hundred_thousand_random_operations_nothing_is_held() {
    let allowance = Allowance {
        requests_per_second: Some(50),
        concurrent_requests: Some(8),
        generated_tokens_per_minute: Some(50_000),
        tokens_per_day: Some(10_000_000),
        ..none()
    };
    let World { limits, clock, .. } =
        &world(Config { global: Allowance { concurrent_requests: Some(20), ..none() }, ..keys(allowance) }).await;
    let who: Vec<_> = (0..5).map(|n| holder(&format!("k{n}"), &format!("t{}", n % 2))).collect();
    let (mut random, mut held, mut admitted, mut refused, mut used) = (Random(4), Vec::new(), 0, 0, 0);
    for _ in 0..100_000 {
        match random.below(4) {
            0 | 1 => match limits
                .admit(&who[usize::try_from(random.below(5)).expect("small")], &estimate(random.below(100), random.below(300)))
            {
                Ok(reservation) => {
                    admitted += 1;
                    held.push(reservation);
                }
                Err(_) => refused += 1,
            },
            2 if !held.is_empty() => {
                let mut reservation = held.swap_remove(usize::try_from(random.below(held.len() as u64)).expect("small"));
                if random.below(3) > 0 {
                    let (prompt, generated) = (random.below(100), random.below(300));
                    reservation.settle(prompt, generated);
                    used += prompt + generated;
                }
            }
            _ => clock.advance(Duration::from_millis(random.below(3))),
        }
        assert!(held.len() <= 20);
    }
    assert!(admitted > 1_000 && refused > 1_000, "{admitted} {refused}");
    drop(held);
    let (accounts, total) = limits.all(100, |_| None, &Allowance::default());
    assert_eq!(total, 5 + 2 + 1);
    assert!(accounts.iter().all(|account| account.running == 0 && account.reserved_tokens == 0), "{accounts:?}");
    for scope in [Scope::Key, Scope::Tenant, Scope::Global] {
        let sum: u64 = accounts.iter().filter(|account| account.scope == scope).map(|account| account.tokens_today).sum();
        assert_eq!(sum, used, "{scope:?}");
    }
}
