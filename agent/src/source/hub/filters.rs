//! Who subscribed to what: filters as a tree of levels (section 4.7 of both standards). Looking for
//! those that fit a topic visits no more places than there are levels in all filters, however long
//! the topic is. Pure.

use super::Terms;
use crate::limits::{SUBSCRIPTION_LEVEL_BYTES, SUBSCRIPTIONS_BYTES_MAX};
use std::collections::BTreeMap;

/// All filters.
#[derive(Debug, Default)]
pub(super) struct Filters {
    root: Node,
    count: usize,
    bytes: usize,
}

/// One level of those filters that begin alike.
#[derive(Debug, Default)]
struct Node {
    names: BTreeMap<Box<str>, Node>,
    /// `+`.
    any: Option<Box<Node>>,
    /// Filters that end here.
    here: Vec<(u64, Terms)>,
    /// Filters that end here in `#`.
    rest: Vec<(u64, Terms)>,
}

/// What a filter counts.
pub(super) fn cost_of(filter: &str) -> usize {
    filter.len() + filter.split('/').count() * SUBSCRIPTION_LEVEL_BYTES
}

impl Node {
    fn is_empty(&self) -> bool {
        let ends = self.here.is_empty() && self.rest.is_empty();
        ends && self.names.is_empty() && self.any.is_none()
    }

    /// Where `filter` ends, made where it was not.
    fn end(&mut self, filter: &str) -> &mut Vec<(u64, Terms)> {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return &mut node.rest,
                "+" => node.any.get_or_insert_default(),
                name => node.names.entry(name.into()).or_default(),
            };
        }
        &mut node.here
    }

    /// Removes what `reader` has there; whether it had something.
    fn remove(&mut self, filter: Option<&str>, reader: u64) -> bool {
        let Some(filter) = filter else {
            return take_out(&mut self.here, reader);
        };
        let (level, behind) = match filter.split_once('/') {
            Some((level, behind)) => (level, Some(behind)),
            None => (filter, None),
        };
        match level {
            "#" => take_out(&mut self.rest, reader),
            "+" => {
                let Some(any) = &mut self.any else {
                    return false;
                };
                let removed = any.remove(behind, reader);
                self.any.take_if(|any| any.is_empty());
                removed
            }
            name => {
                let Some(node) = self.names.get_mut(name) else {
                    return false;
                };
                let removed = node.remove(behind, reader);
                if node.is_empty() {
                    self.names.remove(name);
                }
                removed
            }
        }
    }
}

fn take_out(ends: &mut Vec<(u64, Terms)>, reader: u64) -> bool {
    let before = ends.len();
    ends.retain(|(other, _)| *other != reader);
    ends.len() < before
}

impl Filters {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether one of this [cost](cost_of) may be added.
    pub(super) fn has_room(&self, cost: usize) -> bool {
        self.bytes + cost <= SUBSCRIPTIONS_BYTES_MAX
    }

    /// Adds one of `reader`, or changes it.
    pub(super) fn insert(&mut self, filter: &str, reader: u64, terms: Terms) {
        let ends = self.root.end(filter);
        match ends.iter_mut().find(|(other, _)| *other == reader) {
            Some((_, known)) => *known = terms,
            None => {
                ends.push((reader, terms));
                self.count += 1;
                self.bytes += cost_of(filter);
            }
        }
    }

    /// Removes one of `reader`.
    pub(super) fn remove(&mut self, filter: &str, reader: u64) {
        if self.root.remove(Some(filter), reader) {
            self.count -= 1;
            self.bytes -= cost_of(filter);
        }
    }

    /// Those that fit `topic`, with whose they are. None of ours begins with a wildcard, so that
    /// what section 4.7.2 says of `$` never matters.
    pub(super) fn matching(&self, topic: &str) -> Vec<(u64, Terms)> {
        let mut found = Vec::new();
        let mut nodes = vec![&self.root];
        for level in topic.split('/') {
            let mut next = Vec::with_capacity(nodes.len() + 1);
            for node in nodes {
                found.extend_from_slice(&node.rest);
                next.extend(node.names.get(level));
                next.extend(node.any.as_deref());
            }
            if next.is_empty() {
                return found;
            }
            nodes = next;
        }
        for node in nodes {
            found.extend_from_slice(&node.here);
            // Section 4.7.1.2: `plant/#` holds `plant`, too.
            found.extend_from_slice(&node.rest);
        }
        found
    }
}

/// Whether one filter fits a topic.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let mut parts = topic.split('/');
    for level in filter.split('/') {
        match (level, parts.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (name, Some(part)) if name == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERMS: Terms = Terms {
        qos: 0,
        id: None,
        as_published: false,
    };

    #[test]
    fn a_filter_fits_what_the_standard_says() {
        for (filter, topic, fits) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b", "a", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+/c", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("a/+/#", "a", false),
            ("a/+/#", "a/b", true),
            // Section 4.7.3: nothing is normalised.
            ("a/\u{e9}", "a/\u{e9}", true),
            ("a/\u{e9}", "a/e\u{301}", false),
        ] {
            assert_eq!(matches(filter, topic), fits, "{filter} {topic}");
            let mut filters = Filters::default();
            filters.insert(filter, 1, TERMS);
            let found = filters.matching(topic).len();
            assert_eq!(found, usize::from(fits), "{filter} {topic}");
        }
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut filters = Filters::default();
        let all = ["a/b/c", "a/+/c", "a/b/#", "a", "a/#", "+/#", "#"];
        for filter in all {
            for reader in [1, 2] {
                filters.insert(filter, reader, TERMS);
                filters.insert(filter, reader, TERMS);
            }
        }
        assert_eq!(filters.len(), 2 * all.len());
        filters.remove("a/b", 1);
        filters.remove("a/b/c/d", 1);
        filters.remove("a/b/c", 3);
        assert_eq!(filters.len(), 2 * all.len(), "none of them was there");
        for filter in all {
            filters.remove(filter, 1);
            let own = filters.matching("a/b/c");
            assert!(own.iter().any(|(reader, _)| *reader == 2));
        }
        assert!(
            filters
                .matching("a/b/c")
                .iter()
                .all(|(reader, _)| *reader == 2)
        );
        for filter in all {
            filters.remove(filter, 2);
        }
        assert!(filters.root.is_empty(), "{filters:?}");
        assert_eq!((filters.count, filters.bytes), (0, 0));
    }

    /// The worst that filters can be: a `+` or a name at each level. What is visited has the bound
    /// that they were let in by.
    #[test]
    fn a_long_topic_costs_no_more_than_the_filters_are_long() {
        let mut filters = Filters::default();
        for number in 0..64u64 {
            let levels = (0..12).map(|level| match (number >> (level % 6)) & 1 {
                0 => "+",
                _ => "a",
            });
            let filter: Vec<&str> = levels.collect();
            filters.insert(&filter.join("/"), number, TERMS);
        }
        assert_eq!(filters.matching(&["a"; 12].join("/")).len(), 64);
        assert_eq!(filters.matching(&"a/".repeat(30_000)).len(), 0);
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_one_filter_at_a_time(
            filters in prop::collection::btree_set("[ab+]{0,1}(/[ab+]{0,1}){0,3}(/#)?", 0..12),
            topic in "[ab]{0,1}(/[ab]{0,1}){0,4}",
        ) {
            let mut tree = Filters::default();
            for (reader, filter) in filters.iter().enumerate() {
                tree.insert(filter, reader as u64, TERMS);
            }
            let mut found: Vec<u64> = tree.matching(&topic).into_iter().map(|(r, _)| r).collect();
            found.sort_unstable();
            let fits = |(_, filter): &(usize, &String)| matches(filter, &topic);
            let expected: Vec<u64> =
                filters.iter().enumerate().filter(fits).map(|(r, _)| r as u64).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
