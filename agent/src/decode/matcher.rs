//! Which rule is for a topic: the first one, of all filters in one walk over the topic's levels.
//!
//! A tree of levels. A topic that no filter begins like is done with after one look; the work for
//! any other is bounded by the number of levels in all filters, and allocates nothing. Levels are
//! looked for by hash, in one run of numbers, and then compared.

use super::filter::{Filter, Level};
use super::message_hash;

/// No rule.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Node {
    /// Hashes of literal levels, ascending.
    hashes: Vec<u64>,
    /// The levels in that order, with the nodes behind them.
    literals: Vec<(Box<str>, u32)>,
    /// The node behind any level.
    any: Option<u32>,
    /// The first rule whose filter ends here.
    here: u32,
    /// The first rule whose filter ends here with `#`.
    rest: u32,
    /// The first rule at or below this node.
    least: u32,
}

impl Node {
    fn new() -> Self {
        Self {
            hashes: Vec::new(),
            literals: Vec::new(),
            any: None,
            here: NONE,
            rest: NONE,
            least: NONE,
        }
    }

    /// Where the level stands, or would.
    fn place(&self, level: &str) -> Result<usize, usize> {
        let hash = hash(level);
        let first = self.hashes.partition_point(|known| *known < hash);
        let same = self.hashes.get(first..).unwrap_or_default();
        let same = same.iter().take_while(|known| **known == hash).count();
        let equal = |place: &usize| {
            let literal = self.literals.get(*place);
            literal.is_some_and(|(known, _)| **known == *level)
        };
        (first..first + same).find(equal).ok_or(first)
    }
}

fn hash(level: &str) -> u64 {
    message_hash(level, b"")
}

/// All filters, as a tree.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    nodes: Vec<Node>,
}

impl Matcher {
    /// The tree of these filters; the first one wins.
    pub fn new<'a>(filters: impl Iterator<Item = &'a Filter>) -> Self {
        let mut matcher = Self {
            nodes: vec![Node::new()],
        };
        for (rule, filter) in (0..NONE).zip(filters) {
            matcher.insert(filter, rule);
        }
        matcher
    }

    fn insert(&mut self, filter: &Filter, rule: u32) {
        let mut at = 0;
        for level in filter.levels() {
            self.claim(at, rule);
            at = self.behind(at, level);
        }
        self.claim(at, rule);
        if let Some(node) = self.nodes.get_mut(at as usize) {
            let end = if filter.rest() {
                &mut node.rest
            } else {
                &mut node.here
            };
            *end = (*end).min(rule);
        }
    }

    fn claim(&mut self, at: u32, rule: u32) {
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.least = node.least.min(rule);
        }
    }

    /// The node behind `level`, made when it is not there.
    fn behind(&mut self, at: u32, level: &Level) -> u32 {
        let fresh = self.nodes.len() as u32;
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return at;
        };
        let found = match level {
            Level::Any(_) => *node.any.get_or_insert(fresh),
            Level::Literal(text) => match node.place(text) {
                Ok(place) => node.literals.get(place).map_or(at, |(_, behind)| *behind),
                Err(place) => {
                    node.hashes.insert(place, hash(text));
                    node.literals.insert(place, (text.clone(), fresh));
                    fresh
                }
            },
        };
        if found == fresh {
            self.nodes.push(Node::new());
        }
        found
    }

    /// The first rule for `topic`.
    #[inline]
    pub fn find(&self, topic: &str) -> Option<usize> {
        let mut best = NONE;
        let root = self.nodes.first()?;
        if topic.starts_with('$') {
            // No wildcard stands for a first level with `$` (MQTT 3.1.1, section 4.7.2).
            let (level, behind) = split(topic);
            self.literal(root, level, behind, &mut best);
        } else {
            self.walk(0, Some(topic), &mut best);
        }
        (best != NONE).then_some(best as usize)
    }

    /// Looks at and below a node; `topic` is what is left of it. As deep as the deepest filter.
    fn walk(&self, at: u32, topic: Option<&str>, best: &mut u32) {
        let Some(node) = self
            .nodes
            .get(at as usize)
            .filter(|node| node.least < *best)
        else {
            return;
        };
        *best = (*best).min(node.rest);
        let Some(topic) = topic else {
            *best = (*best).min(node.here);
            return;
        };
        let (level, behind) = split(topic);
        self.literal(node, level, behind, best);
        if let Some(any) = node.any {
            self.walk(any, behind, best);
        }
    }

    fn literal(&self, node: &Node, level: &str, behind: Option<&str>, best: &mut u32) {
        let place = node.place(level).ok();
        if let Some((_, next)) = place.and_then(|place| node.literals.get(place)) {
            self.walk(*next, behind, best);
        }
    }
}

/// The first level, and what stands behind its `/`.
fn split(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, behind)) => (level, Some(behind)),
        None => (topic, None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(filters: &[&str], topic: &str) -> Option<usize> {
        let filters: Vec<Filter> = filters.iter().map(|f| Filter::parse(f).unwrap()).collect();
        Matcher::new(filters.iter()).find(topic)
    }

    #[test]
    fn mqtts_own_examples_hold() {
        // 3.1.1, sections 4.7.1.2, 4.7.1.3 and 4.7.2.
        for (filter, topic, matches) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/w",
                true,
            ),
            ("sport/tennis/player1/#", "sport/tennis/player2", false),
            ("sport/#", "sport", true),
            ("#", "sport/tennis", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("{a}/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ] {
            assert_eq!(
                find(&[filter], topic).is_some(),
                matches,
                "{filter} {topic}"
            );
            assert_eq!(Filter::parse(filter).unwrap().is_for(topic), matches);
        }
    }

    #[test]
    fn the_first_rule_wins_wherever_it_stands_in_the_tree() {
        let filters = ["a/+/c", "a/b/#", "a/b/c", "#", "{x}/b/c"];
        assert_eq!(find(&filters, "a/b/c"), Some(0));
        assert_eq!(find(&filters, "a/b/d"), Some(1));
        assert_eq!(find(&filters[1..], "a/b/c"), Some(0));
        assert_eq!(find(&filters[2..], "a/b/c"), Some(0));
        assert_eq!(find(&filters, "x/b/c"), Some(3));
        assert_eq!(find(&filters[..3], "x/b/c"), None);
        assert_eq!(find(&[], "x"), None);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            4 => Just("a"), 4 => Just("b"), 1 => Just(""), 1 => Just("$c"), 3 => Just("+"),
        ]
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_one_by_one_finds(
            filters in proptest::collection::vec(
                (proptest::collection::vec(level(), 1..5), any::<bool>()), 0..12),
            topic in proptest::collection::vec(level(), 1..6),
        ) {
            let filters: Vec<Filter> = filters
                .into_iter()
                .filter_map(|(mut levels, rest)| {
                    if rest {
                        levels.push("#");
                    }
                    Filter::parse(&levels.join("/")).ok()
                })
                .collect();
            let topic = topic.join("/");
            let first = filters.iter().position(|filter| filter.is_for(&topic));
            prop_assert_eq!(Matcher::new(filters.iter()).find(&topic), first);
        }
    }
}
