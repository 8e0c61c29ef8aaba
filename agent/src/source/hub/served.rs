//! What may be subscribed to, and who sees what of it. Pure.

use super::{AGGREGATES, ALERTS, ROOT, STATUS};
use crate::limits::{SUBSCRIPTION_BYTES_MAX, SUBSCRIPTION_LEVELS_MAX};
use crate::source::access::acl::Rights;

/// Why a filter is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) enum Unserved {
    /// Nothing is ever published where it looks.
    Elsewhere,
    /// A shared subscription.
    Shared,
    /// It is longer than any topic of use.
    Long,
    /// The client may not read that.
    Forbidden,
}

impl Unserved {
    /// The reason code of SUBACK (section 3.9.3 \[5\]).
    pub(in crate::source) fn code(self) -> u8 {
        match self {
            Self::Elsewhere => 0x83,
            Self::Shared => 0x9e,
            Self::Long => 0x8f,
            Self::Forbidden => 0x87,
        }
    }
}

/// Looks at a well-formed filter: it must lie below `tributary/`, where something is published that
/// the client may read.
pub(in crate::source) fn check(filter: &str, rights: Option<&Rights>) -> Result<(), Unserved> {
    if filter.split('/').next() == Some("$share") {
        return Err(Unserved::Shared);
    }
    let Some(below) = filter.strip_prefix(ROOT) else {
        return Err(Unserved::Elsewhere);
    };
    let mut levels = below.split('/');
    let (first, second) = (levels.next().unwrap_or_default(), levels.next());
    let devices = match first {
        "alerts" | "aggregates" | "+" => second.is_some_and(|second| !second.is_empty()),
        first => first == "#",
    };
    let status = matches!(first, "status" | "+" | "#") && matches!(second, None | Some("#"));
    if !devices && !status {
        return Err(Unserved::Elsewhere);
    }
    if filter.len() > SUBSCRIPTION_BYTES_MAX || filter.split('/').count() > SUBSCRIPTION_LEVELS_MAX
    {
        return Err(Unserved::Long);
    }
    let exact = !filter.contains(['+', '#']);
    let may = match rights {
        None => true,
        Some(rights) if exact => sees(Some(rights), filter),
        Some(rights) if status => rights.grants.read.is_some(),
        Some(rights) => rights.sees_any(),
    };
    may.then_some(()).ok_or(Unserved::Forbidden)
}

/// Whether a client sees what is published on `topic`; everybody does where nobody has to say who
/// they are.
pub(super) fn sees(rights: Option<&Rights>, topic: &str) -> bool {
    let Some(rights) = rights else {
        return true;
    };
    // The window's name stands before the device.
    let of_window = topic.strip_prefix(AGGREGATES);
    let of_device = topic
        .strip_prefix(ALERTS)
        .or_else(|| of_window?.split_once('/').map(|(_, series)| series));
    match of_device {
        Some(series) => rights.sees(series),
        None => topic == STATUS && rights.grants.read.is_some(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::source::access::acl::Grants;
    use std::sync::Arc;

    fn rights(publish: &[&str], read: Option<&[&str]>) -> Rights {
        let texts = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        let grants = Grants::parse(&texts(publish), read.is_some()).unwrap();
        let grants = match read {
            Some(filters) if !filters.is_empty() => grants.reading(&texts(filters)).unwrap(),
            _ => grants,
        };
        Rights {
            user: "pump-7".into(),
            client_id: "c".into(),
            grants: Arc::new(grants),
        }
    }

    #[test]
    fn only_what_is_published_can_be_subscribed_to() {
        for (filter, expected) in [
            ("tributary/alerts/#", Ok(())),
            ("tributary/alerts/+", Ok(())),
            ("tributary/alerts/plant/pump-7/#", Ok(())),
            ("tributary/alerts/+/+/t", Ok(())),
            ("tributary/aggregates/#", Ok(())),
            ("tributary/status", Ok(())),
            ("tributary/status/#", Ok(())),
            ("tributary/#", Ok(())),
            ("tributary/+", Ok(())),
            ("tributary/+/pump/#", Ok(())),
            ("tributary/alerts", Err(Unserved::Elsewhere)),
            ("tributary/alerts/", Err(Unserved::Elsewhere)),
            ("tributary/status/x", Err(Unserved::Elsewhere)),
            ("tributary", Err(Unserved::Elsewhere)),
            ("tributary/", Err(Unserved::Elsewhere)),
            ("tributary/other/#", Err(Unserved::Elsewhere)),
            ("tributaryx/alerts/#", Err(Unserved::Elsewhere)),
            ("#", Err(Unserved::Elsewhere)),
            ("+/alerts/#", Err(Unserved::Elsewhere)),
            ("plant/#", Err(Unserved::Elsewhere)),
            ("$SYS/#", Err(Unserved::Elsewhere)),
            ("$share/g/tributary/alerts/#", Err(Unserved::Shared)),
            ("$share", Err(Unserved::Shared)),
            ("$shared/x", Err(Unserved::Elsewhere)),
        ] {
            assert_eq!(check(filter, None), expected, "{filter}");
        }
        let long = format!("tributary/alerts/{}", "x".repeat(SUBSCRIPTION_BYTES_MAX));
        assert_eq!(check(&long, None), Err(Unserved::Long));
        let deep = format!("tributary/alerts{}", "/x".repeat(SUBSCRIPTION_LEVELS_MAX));
        assert_eq!(check(&deep, None), Err(Unserved::Long));
    }

    #[test]
    fn a_client_sees_the_devices_that_it_may_publish_for_or_read() {
        let own = rights(&["plant/%u/#"], Some(&[]));
        let message = rights(&["plant/%u"], Some(&[]));
        let metric = rights(&["plant/+/temperature"], Some(&[]));
        let reader = rights(&[], Some(&["hall/+/+", "plant/%u/t"]));
        let none = rights(&["#"], None);
        for (topic, seen) in [
            (
                "tributary/alerts/plant/pump-7/t",
                [true, true, false, true, false],
            ),
            // JSON: the topic is the device, and each member a metric.
            (
                "tributary/alerts/plant/pump-7/state/t",
                [true, false, false, false, false],
            ),
            ("tributary/alerts/plant/pump-8/t", [false; 5]),
            (
                "tributary/alerts/plant/pump-8/temperature",
                [false, false, true, false, false],
            ),
            (
                "tributary/aggregates/minute/hall/4/t",
                [false, false, false, true, false],
            ),
            ("tributary/aggregates/hall/4/t", [false; 5]),
            ("tributary/aggregates/minute", [false; 5]),
            ("tributary/alerts/hall/4/5/t", [false; 5]),
            ("tributary/status", [true, true, true, true, false]),
            ("tributary/unknown", [false; 5]),
        ] {
            let all = [&own, &message, &metric, &reader, &none];
            let sees = all.map(|rights| sees(Some(rights), topic));
            assert_eq!(sees, seen, "{topic}");
        }
    }

    #[test]
    fn what_a_client_would_never_see_is_refused() {
        let own = rights(&["plant/%u/#"], Some(&[]));
        let nothing = rights(&[], Some(&[]));
        let none = rights(&["#"], None);
        for (filter, expected) in [
            ("tributary/alerts/#", [true, false, false]),
            ("tributary/alerts/plant/pump-7/t", [true, false, false]),
            ("tributary/alerts/plant/pump-8/t", [false, false, false]),
            ("tributary/status", [true, true, false]),
            ("tributary/#", [true, true, false]),
        ] {
            let all = [&own, &nothing, &none];
            let may = all.map(|rights| check(filter, Some(rights)).is_ok());
            assert_eq!(may, expected, "{filter}");
        }
        assert_eq!(
            check("tributary/alerts/#", Some(&none)),
            Err(Unserved::Forbidden)
        );
    }
}
