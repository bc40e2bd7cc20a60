//! What all attempts of a worker have to heed: pure.

use crate::jobs::config::{Config, Yield};
use crate::jobs::worker::Ask;
use crate::storage::jobs::{Job, PoolOrder};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// The worker is to end.
    pub stopping: bool,
    pub order: PoolOrder,
    /// Live requests need the machine.
    pub pressed: bool,
}

impl Weather {
    /// What the child of a job is to do.
    #[must_use]
    pub fn asks(self, job: &Job, config: &Config) -> Ask {
        if self.stopping || self.order == PoolOrder::Drain || job.standing.cancel_requested {
            return Ask::Stop;
        }
        if self.pressed && job.order.priority <= config.pressure.priority {
            return match config.pressure.running {
                Yield::Run => Ask::Go,
                Yield::Wait => Ask::Wait,
                Yield::Stop => Ask::Stop,
            };
        }
        Ask::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::generation::Priority;
    use crate::jobs::machine::submitted;
    use crate::storage::jobs::tests::order;
    use crate::storage::jobs::{Needs, Order};

    fn job(priority: Priority, cancel_requested: bool) -> Job {
        let order = Order { priority, needs: Needs::default(), ..order("") };
        let mut job = Job::new(order, submitted(1, 0));
        job.standing.cancel_requested = cancel_requested;
        job
    }

    #[test]
    fn each_reason_asks_for_what_it_is_to() {
        let mut config = Config::default();
        let asks = |weather: Weather, config: &Config| weather.asks(&job(Priority::Low, false), config);
        assert_eq!(asks(Weather::default(), &config), Ask::Go);
        assert_eq!(Weather::default().asks(&job(Priority::Low, true), &config), Ask::Stop);
        assert_eq!(asks(Weather { stopping: true, ..Weather::default() }, &config), Ask::Stop);
        assert_eq!(asks(Weather { order: PoolOrder::Drain, ..Weather::default() }, &config), Ask::Stop);
        assert_eq!(asks(Weather { order: PoolOrder::Pause, ..Weather::default() }, &config), Ask::Go);
        let pressed = Weather { pressed: true, ..Weather::default() };
        for (running, ask) in [(Yield::Run, Ask::Go), (Yield::Wait, Ask::Wait), (Yield::Stop, Ask::Stop)] {
            config.pressure.running = running;
            assert_eq!(asks(pressed, &config), ask);
            assert_eq!(pressed.asks(&job(Priority::Normal, false), &config), Ask::Go, "above those that make way");
        }
    }
}
