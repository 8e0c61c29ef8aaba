//! JSON pointers (RFC 6901), and the tree of all that a rule reads: which slot the value at a
//! place goes to. Walks no JSON itself.

use crate::limits::{JSON_DEPTH_MAX, POINTER_BYTES_MAX};

/// A place in a JSON document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pointer {
    text: Box<str>,
    steps: Vec<Box<str>>,
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && !text.starts_with('/') {
            return Err(format!(
                "is \"{text}\"; expected a JSON pointer, which begins with `/`: \"/{text}\"?"
            ));
        }
        if text.len() > POINTER_BYTES_MAX {
            return Err(format!("is longer than {POINTER_BYTES_MAX} bytes"));
        }
        let steps = text
            .split('/')
            .skip(1)
            .map(step)
            .collect::<Result<Vec<_>, _>>()?;
        if steps.len() > JSON_DEPTH_MAX {
            return Err(format!("is deeper than {JSON_DEPTH_MAX} levels"));
        }
        Ok(Self {
            text: text.into(),
            steps,
        })
    }

    /// The pointer as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What people call the place, and a member there is named: its steps, joined by `.`.
    pub(super) fn name(&self) -> String {
        self.steps.join(".")
    }
}

/// `~1` is `/`, and `~0` is `~`.
fn step(text: &str) -> Result<Box<str>, String> {
    let mut pieces = text.split('~');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escaped, rest) = match piece.as_bytes().first() {
            Some(b'0') => ('~', piece.get(1..)),
            Some(b'1') => ('/', piece.get(1..)),
            _ => return Err("has a `~` that is neither `~0` nor `~1`".into()),
        };
        out.push(escaped);
        out.push_str(rest.unwrap_or_default());
    }
    Ok(out.into())
}

/// A node of the tree.
pub(super) type Node = u32;
/// A document itself.
pub(super) const ROOT: Node = 0;

#[derive(Clone, Debug, Default)]
struct Place {
    below: Vec<Step>,
    slot: Option<usize>,
}

#[derive(Clone, Debug)]
struct Step {
    key: Box<str>,
    /// The place in an array that the key stands for.
    index: Option<usize>,
    node: Node,
}

/// Every place that is read, with the number of its slot.
#[derive(Clone, Debug)]
pub(super) struct Places {
    nodes: Vec<Place>,
    /// What people call each slot.
    names: Vec<Box<str>>,
}

impl Places {
    /// No place, with room for `slots`.
    pub fn new(slots: usize) -> Self {
        Self {
            nodes: vec![Place::default()],
            names: vec!["".into(); slots],
        }
    }

    /// Reads what `pointer` leads to into the slot with this number.
    ///
    /// # Errors
    /// Another slot has the place, or one above or below it.
    pub fn insert(&mut self, pointer: &Pointer, slot: usize) -> Result<(), String> {
        let taken = |name: &str| {
            Err(format!(
                "leads to or through `{name}`, which is read already"
            ))
        };
        let mut at = ROOT;
        for key in &pointer.steps {
            if let Some(other) = self.slot(at) {
                return taken(self.name(other));
            }
            let fresh = self.nodes.len() as Node;
            let Some(place) = self.nodes.get_mut(at as usize) else {
                break;
            };
            let known = place.below.iter().find(|step| step.key == *key);
            at = known.map_or(fresh, |step| step.node);
            if at == fresh {
                place.below.push(Step {
                    key: key.clone(),
                    index: index(key),
                    node: fresh,
                });
                self.nodes.push(Place::default());
            }
        }
        let below = |place: &&Place| !place.below.is_empty();
        match self.nodes.get(at as usize) {
            Some(Place {
                slot: Some(other), ..
            }) => return taken(self.name(*other)),
            place if place.as_ref().is_some_and(below) => {
                return Err("leads to what other pointers lead through".into());
            }
            _ => {}
        }
        if let Some(place) = self.nodes.get_mut(at as usize) {
            place.slot = Some(slot);
        }
        if let Some(name) = self.names.get_mut(slot) {
            *name = pointer.name().into();
        }
        Ok(())
    }

    /// How many slots there are.
    #[inline]
    pub fn slots(&self) -> usize {
        self.names.len()
    }

    /// What people call a slot.
    pub fn name(&self, slot: usize) -> &str {
        self.names.get(slot).map_or("", |name| name)
    }

    /// The slot of the value at a node.
    #[inline]
    pub fn slot(&self, node: Node) -> Option<usize> {
        self.nodes.get(node as usize)?.slot
    }

    /// The node of an object's member.
    #[inline]
    pub fn member(&self, node: Node, key: &str) -> Option<Node> {
        let below = &self.nodes.get(node as usize)?.below;
        below
            .iter()
            .find(|step| *step.key == *key)
            .map(|step| step.node)
    }

    /// The node of an array's element.
    pub fn element(&self, node: Node, index: usize) -> Option<Node> {
        let below = &self.nodes.get(node as usize)?.below;
        let found = below.iter().find(|step| step.index == Some(index));
        found.map(|step| step.node)
    }
}

/// The place in an array: digits without a leading zero.
fn index(key: &str) -> Option<usize> {
    let digits = key.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && !(key.len() > 1 && key.starts_with('0'));
    plain.then(|| key.parse().ok())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved_and_wrong_ones_refused() {
        let steps = |text: &str| Pointer::parse(text).unwrap().steps.join("|");
        assert_eq!(steps(""), "");
        assert_eq!(steps("/"), "");
        assert_eq!(Pointer::parse("/").unwrap().steps.len(), 1);
        assert_eq!(steps("/a~1b/m~0n/~01"), "a/b|m~n|~1");
        for (text, why) in [
            ("a/b", "begins with `/`: \"/a/b\"?"),
            ("/a~2", "neither `~0` nor `~1`"),
            ("/a~", "neither `~0` nor `~1`"),
            (&"/a".repeat(33), "deeper than 32"),
            (&format!("/{}", "x".repeat(5_000)), "longer than"),
        ] {
            assert!(Pointer::parse(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn no_place_is_read_twice_and_none_lies_within_another() {
        let mut places = Places::new(5);
        let mut insert = |text: &str, slot| places.insert(&Pointer::parse(text).unwrap(), slot);
        insert("/a/b", 0).unwrap();
        insert("/a/c", 1).unwrap();
        assert!(insert("/a/b", 2).unwrap_err().contains("`a.b`"));
        assert!(insert("/a/b/0", 3).unwrap_err().contains("`a.b`"));
        assert!(insert("/a", 4).unwrap_err().contains("lead through"));
        assert!(insert("", 4).unwrap_err().contains("lead through"));
    }

    #[test]
    fn an_array_is_entered_by_plain_digits_alone() {
        assert_eq!(index("0"), Some(0));
        assert_eq!(index("17"), Some(17));
        for key in ["", "-", "01", "00", "+1", "1 ", "99999999999999999999999"] {
            assert_eq!(index(key), None, "{key}");
        }
    }
}
