//! Which types may be leased now, and how many of each.

use std::collections::HashMap;

use super::Workshop;
use crate::domain::callback::Callback;
use crate::domain::task_type::RunnerSpec;
use crate::runner::Load;

/// Types that share one bound. Those of a lane are leased in one call.
#[derive(Debug)]
struct Lane {
    load: Load,
    types: Vec<String>,
    /// The `concurrency` of a lane's only type.
    concurrency: Option<usize>,
    /// Whether no other type may join.
    alone: bool,
    running: usize,
    /// Whether the store may hold work for it: what is asked again only after news.
    promising: bool,
}

/// How many to lease for which lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub lane: usize,
    pub types: Vec<String>,
    pub max: usize,
}

/// All lanes of this process. A full bound closes its own lanes only, so that work which waits and
/// work which computes never hold each other up.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    of_type: HashMap<String, usize>,
    /// Attempts at a time that use the processor.
    workers: usize,
    /// The lane that is asked first, in turn: lanes of one load share its bound.
    first: usize,
    deliveries: Deliveries,
}

/// Deliveries wait for addresses that users name, in a lane that they share: a target that hangs must leave room in
/// it. A lane of their own would cost one more call at all news.
#[derive(Debug, Default)]
struct Deliveries {
    running: usize,
    /// Whether others were leased without them.
    were_left_out: bool,
}

impl Deliveries {
    /// How many more may be leased; none when it would be too few for one call.
    fn room(&self) -> usize {
        match WAITING_SHARE_MAX.saturating_sub(self.running) {
            0..DELIVERIES_MIN => 0,
            room => room,
        }
    }
}

/// What one lane may take of the bound for work that waits, where there are others: one service that
/// hangs must not keep all other work from its turn.
const WAITING_SHARE_MAX: usize = Load::WAITING_MAX / 4 * 3;
/// Deliveries are asked for when there is room for so many.
const DELIVERIES_MIN: usize = 32;
/// Leases taken in one call at most. The steps of so many attempts fit into few commits.
const BATCH_MAX: usize = 128;

impl Lanes {
    /// Lanes for every type that this process has a runner for.
    pub fn new(shop: &Workshop) -> Self {
        let mut lanes = Lanes {
            lanes: Vec::new(),
            of_type: HashMap::new(),
            workers: shop.gauge.capacity(),
            first: 0,
            deliveries: Deliveries::default(),
        };
        for made in shop.types.iter() {
            if let Some(runner) = shop.runners.get(&made.name) {
                // Each waits for a service of its own.
                let alone = matches!(made.runner, RunnerSpec::Http(_));
                lanes.add(&made.name, runner.load(), made.concurrency, alone);
            }
        }
        lanes
    }

    fn add(&mut self, name: &str, load: Load, concurrency: Option<usize>, alone: bool) {
        let alone = alone || concurrency.is_some();
        let shared = |lane: &Lane| lane.load == load && !lane.alone;
        let place = match self.lanes.iter().position(shared) {
            Some(place) if !alone => place,
            _ => {
                self.lanes.push(Lane {
                    load,
                    types: Vec::new(),
                    concurrency,
                    alone,
                    running: 0,
                    promising: true,
                });
                self.lanes.len() - 1
            }
        };
        self.lanes[place].types.push(name.to_owned());
        self.of_type.insert(name.to_owned(), place);
    }

    pub fn of_type(&self, name: &str) -> Option<usize> {
        self.of_type.get(name).copied()
    }

    /// There may be work for every lane.
    pub fn all_promising(&mut self) {
        for lane in &mut self.lanes {
            lane.promising = true;
        }
    }

    /// What to lease now. No two asks share a slot.
    pub fn asks(&mut self) -> Vec<Ask> {
        let mut processor = self.workers;
        let mut waiting = Load::WAITING_MAX;
        for lane in &self.lanes {
            match lane.load {
                Load::Processor => processor = processor.saturating_sub(lane.running),
                Load::Waiting => waiting = waiting.saturating_sub(lane.running),
            }
        }
        let waiters = self.lanes.iter().filter(|lane| lane.load == Load::Waiting);
        let waiting_share = match waiters.count() {
            0 | 1 => Load::WAITING_MAX,
            _ => WAITING_SHARE_MAX,
        };
        let count = self.lanes.len();
        self.first = (self.first + 1) % count.max(1);
        let mut asks = Vec::new();
        for place in (0..count).map(|offset| (self.first + offset) % count) {
            let lane = &self.lanes[place];
            let (room, share) = match lane.load {
                Load::Processor => (&mut processor, usize::MAX),
                Load::Waiting => (&mut waiting, waiting_share),
            };
            let own = lane.concurrency.unwrap_or(usize::MAX).min(share);
            let mut max = (*room).min(own.saturating_sub(lane.running)).min(BATCH_MAX);
            if max == 0 || !lane.promising {
                continue;
            }
            let mut types = lane.types.clone();
            if types.len() > 1 && types.iter().any(|name| name == Callback::TASK_TYPE) {
                match self.deliveries.room() {
                    0 => {
                        self.deliveries.were_left_out = true;
                        types.retain(|name| name != Callback::TASK_TYPE);
                    }
                    room => max = max.min(room),
                }
            }
            *room -= max;
            asks.push(Ask {
                lane: place,
                types,
                max,
            });
        }
        asks
    }

    /// The store gave fewer than were asked for: there are no more for now.
    pub fn drained(&mut self, lane: usize) {
        self.lanes[lane].promising = false;
    }

    pub fn began(&mut self, lane: usize, name: &str) {
        self.lanes[lane].running += 1;
        if name == Callback::TASK_TYPE {
            self.deliveries.running += 1;
        }
    }

    pub fn ended(&mut self, lane: usize, name: &str) {
        let lane = &mut self.lanes[lane];
        lane.running = lane.running.saturating_sub(1);
        if name == Callback::TASK_TYPE {
            let deliveries = &mut self.deliveries;
            deliveries.running = deliveries.running.saturating_sub(1);
            if deliveries.were_left_out && deliveries.room() > 0 {
                deliveries.were_left_out = false;
                lane.promising = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_hangs_leaves_room_for_others() {
        let mut lanes = lanes(1, &[("echo", Load::Waiting, None)]);
        assert_eq!(filled(&mut lanes, "echo"), Load::WAITING_MAX);
        let mut lanes = Lanes {
            lanes: Vec::new(),
            ..lanes
        };
        lanes.add("echo", Load::Waiting, None, false);
        lanes.add("hangs", Load::Waiting, None, true);
        lanes.add("other", Load::Waiting, None, true);
        assert_eq!(filled(&mut lanes, "hangs"), WAITING_SHARE_MAX);
        let left = Load::WAITING_MAX - WAITING_SHARE_MAX;
        assert_eq!(filled(&mut lanes, "other"), left);
        assert_eq!(filled(&mut lanes, "echo"), 0);
    }

    #[test]
    fn targets_of_callbacks_that_hang_leave_room_for_others() {
        let name = Callback::TASK_TYPE;
        let mut lanes = lanes(
            1,
            &[("echo", Load::Waiting, None), (name, Load::Waiting, None)],
        );
        let place = lanes.of_type(name).unwrap();
        assert_eq!(lanes.of_type("echo"), Some(place));
        let mut running = 0;
        while let Some(ask) = lanes.asks().into_iter().find(|ask| ask.types.len() == 2) {
            (0..ask.max).for_each(|_| lanes.began(place, name));
            running += ask.max;
        }
        assert_eq!(running, WAITING_SHARE_MAX);
        let asks = lanes.asks();
        assert_eq!(asks[0].types, ["echo"]);
        assert_eq!(asks[0].max, Load::WAITING_MAX - WAITING_SHARE_MAX);
        // There are no others, and as soon as some deliveries have ended they are asked for again.
        lanes.drained(place);
        for _ in 1..DELIVERIES_MIN {
            lanes.ended(place, name);
            assert!(lanes.asks().is_empty());
        }
        lanes.ended(place, name);
        assert_eq!(lanes.asks()[0].types.len(), 2);
        assert_eq!(lanes.asks()[0].max, DELIVERIES_MIN);
    }

    /// How many of a type can run, while nothing ends and the others have no work.
    fn filled(lanes: &mut Lanes, name: &str) -> usize {
        let place = lanes.of_type(name).unwrap();
        let mut count = 0;
        lanes.all_promising();
        while let Some(ask) = lanes.asks().into_iter().find(|ask| ask.lane == place) {
            for _ in 0..ask.max {
                lanes.began(place, name);
            }
            count += ask.max;
            for other in (0..lanes.lanes.len()).filter(|other| *other != place) {
                lanes.drained(other);
            }
        }
        count
    }

    fn lanes(workers: usize, types: &[(&str, Load, Option<usize>)]) -> Lanes {
        let mut lanes = Lanes {
            lanes: Vec::new(),
            of_type: HashMap::new(),
            workers,
            first: 0,
            deliveries: Deliveries::default(),
        };
        for (name, load, concurrency) in types {
            lanes.add(name, *load, *concurrency, false);
        }
        lanes
    }

    #[test]
    fn a_full_bound_closes_its_own_lanes_only() {
        let mut lanes = lanes(
            2,
            &[
                ("parse", Load::Processor, None),
                ("echo", Load::Waiting, None),
                ("convert", Load::Processor, None),
            ],
        );
        let parse = lanes.of_type("parse").unwrap();
        assert_eq!(lanes.of_type("convert"), Some(parse));
        let total: usize = lanes.asks().iter().map(|ask| ask.max).sum();
        assert_eq!(total, 2 + BATCH_MAX);
        lanes.began(parse, "parse");
        lanes.began(parse, "parse");
        let asks = lanes.asks();
        assert_eq!(asks.len(), 1);
        assert_eq!(asks[0].types, ["echo"]);
        lanes.ended(parse, "parse");
        assert_eq!(lanes.asks().len(), 2);
    }

    #[test]
    fn a_types_own_bound_holds_and_lanes_of_one_load_take_turns() {
        let mut lanes = lanes(
            4,
            &[
                ("one", Load::Processor, Some(1)),
                ("any", Load::Processor, None),
            ],
        );
        for _ in 0..4 {
            let asks = lanes.asks();
            let sum: usize = asks.iter().map(|ask| ask.max).sum();
            assert_eq!(sum, 4);
            let one = asks.iter().find(|ask| ask.types == ["one"]);
            assert!(one.is_none_or(|ask| ask.max == 1));
        }
        let one = lanes.of_type("one").unwrap();
        lanes.began(one, "one");
        assert!(
            lanes
                .asks()
                .iter()
                .all(|ask| ask.types == ["any"] && ask.max == 3)
        );
    }

    #[test]
    fn a_drained_lane_waits_for_news() {
        let mut lanes = lanes(1, &[("echo", Load::Waiting, None)]);
        assert_eq!(lanes.asks().len(), 1);
        lanes.drained(0);
        assert!(lanes.asks().is_empty());
        lanes.all_promising();
        assert_eq!(lanes.asks().len(), 1);
    }
}
