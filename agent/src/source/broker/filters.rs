//! Topic filters: which are usable, and which topics are our own. Pure; section numbers are those
//! of MQTT 3.1.1 and 5, which agree here.

use crate::limits::BROKER_FILTER_BYTES_MAX;

/// Whether the topic is one that Tributary itself publishes to: never a source.
pub(crate) fn is_own(topic: &str) -> bool {
    let rest = topic.strip_prefix("tributary");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The filter behind `$share/<group>/`, or all of it.
fn shared(filter: &str) -> Result<&str, &'static str> {
    let Some(rest) = filter.strip_prefix("$share/") else {
        return Ok(filter);
    };
    match rest.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => Ok(filter),
        _ => Err("is no shared subscription: expected `$share/<group>/<filter>`"),
    }
}

/// Whether several clients share this subscription (section 4.8.2 \[5\]).
pub(super) fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// Whether the filter holds a wildcard.
pub(super) fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// Why a filter cannot be subscribed to; `None` when it can (section 4.7).
pub(crate) fn wrong(filter: &str) -> Option<&'static str> {
    let topic = match shared(filter) {
        Ok(topic) => topic,
        Err(why) => return Some(why),
    };
    if topic.is_empty() {
        return Some("is empty");
    }
    if filter.len() > BROKER_FILTER_BYTES_MAX {
        return Some("is longer than 512 bytes");
    }
    if filter.contains('\0') {
        return Some("holds U+0000");
    }
    let levels: Vec<&str> = topic.split('/').collect();
    let last = levels.len() - 1;
    for (place, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || place != last) {
            return Some("has a `#` that is not its whole last level");
        }
        if level.contains('+') && *level != "+" {
            return Some("has a `+` that is not a whole level");
        }
    }
    // Only what can match nothing else: `+/x` may, and what is our own is then passed over.
    is_own(topic).then_some("is Tributary's own: it would read what it publishes itself")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_usable_or_say_why_not() {
        for good in [
            "#",
            "a",
            "/",
            "+/+",
            "plant/+/t",
            "plant/#",
            "$SYS/#",
            "$share/g/plant/#",
            "tributary2/x",
            "+/alerts",
        ] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for bad in [
            "",
            "a#",
            "a/#/b",
            "a+/b",
            "tributary",
            "tributary/#",
            "tributary/alerts/x",
            "$share/g",
            "$share//x",
            "$share/+/x",
            "$share/g/tributary/#",
            "a\0",
            &"x".repeat(513),
        ] {
            assert!(wrong(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn only_our_own_topics_are_ours() {
        for own in ["tributary", "tributary/alerts/a", "tributary/"] {
            assert!(is_own(own), "{own}");
        }
        for other in ["tributary2", "a/tributary", "Tributary/x", ""] {
            assert!(!is_own(other), "{other}");
        }
    }
}
