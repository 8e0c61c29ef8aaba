//! What changed in the file and holds only after a restart: said by name, so that nobody believes
//! that SIGHUP took it.

use super::Loaded;
use tributary_settings::Table;

/// A part of the file that is not read again, and whether it means the same as before.
pub type NeedsRestart<'a> = (&'a str, bool);

/// A line for each setting of these parts that changed; none for one that was only written in
/// another way, or moved.
pub fn changed(parts: &[NeedsRestart<'_>], before: &Table, now: &Table) -> Vec<String> {
    let differing = parts.iter().filter(|(_, same)| !same);
    let lines = differing.flat_map(|(part, _)| before.differences(now, part));
    lines
        .map(|what| format!("{what} changed: needs a restart"))
        .collect()
}

impl Loaded {
    /// What of `now` needs a restart, where the agent was started with this.
    pub fn needs_restart(&self, now: &Self) -> Vec<String> {
        let (old, new) = (&self.config, &now.config);
        let parts = [
            ("agent", old.agent == new.agent),
            ("source.listener", old.listener == new.listener),
            ("source.mqtt", old.brokers == new.brokers),
            ("decode", old.decode == new.decode),
            ("wal", old.wal == new.wal),
            ("detect.enabled", old.detect.enabled == new.detect.enabled),
            ("forward", old.forward == new.forward),
            ("capture", old.forward == new.forward),
            ("spool", old.spool == new.spool),
            ("uplink", old.uplink == new.uplink),
            ("http", old.http == new.http),
        ];
        changed(&parts, &self.written, &now.written)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::{Config, Loaded};

    fn loaded(text: &str) -> Loaded {
        Config::parse_all(text, []).unwrap()
    }

    #[test]
    fn exactly_what_needs_a_restart_is_named() {
        let before = loaded(
            "[wal]\nquota_bytes = \"256 MiB\"\n[detect]\npreset = \"calm\"\n\
             [[source.mqtt]]\naddress = \"a:1\"\n",
        );
        let same = loaded(
            "[detect]\npreset = \"quiet\"\nseries_max = 7\n[[source.mqtt]]\naddress = \"a:1\"\n\
             [wal]\nquota_bytes = 268435456\nmax_delay_ms = 20\n",
        );
        assert!(before.needs_restart(&same).is_empty());
        let other = loaded(
            "[wal]\nquota_bytes = \"300 MiB\"\n[detect]\nenabled = false\n\
             [[decode]]\ntopic = \"a\"\nvalue = \"/a\"\n\
             [spool.lanes.alerts]\npolicy = \"block\"\n[capture]\npre_s = 3\n\
             [source.listener]\nrate_limit_messages_per_s = 5\n[http]\naddress = \"127.0.0.1:1\"\n\
             [agent]\nname = \"n\"\n[uplink]\nserver_name = \"s\"\n",
        );
        let said = before.needs_restart(&other);
        let names: Vec<&str> = said
            .iter()
            .map(|line| line.strip_suffix(" changed: needs a restart").unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "[agent] name",
                "[source.listener] rate_limit_messages_per_s",
                "[[source.mqtt]]",
                "[[decode]]",
                "[wal] quota_bytes",
                "[detect] enabled",
                "[capture] pre_s",
                "[spool.lanes.alerts] policy",
                "[uplink] server_name",
                "[http] address",
            ]
        );
    }
}
