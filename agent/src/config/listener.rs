//! `[source.listener]`: where MQTT clients come in, and who may. The rule: an address that others
//! can reach needs TLS and authentication; what falls short of that must be asked for by name.

use super::{address_or, loopback};
use crate::limits::RATE_LIMIT_MESSAGES_PER_S;
use crate::source::ListenerConfig;
use crate::source::access::acl::Grants;
use crate::source::tls::{ClientCertificates, TlsConfig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tributary_settings::Section;

/// What stands for no plain listener at all.
const NONE: &str = "none";

pub(super) fn read(section: &mut Section) -> ListenerConfig {
    let address = plain_address(section);
    let insecure = section.or("insecure_allow_remote", false);
    let users = section.optional::<PathBuf>("users");
    let has_tls = section.has("tls");
    let tls = tls(&mut section.section("tls"), has_tls);
    let rate = u64::from(RATE_LIMIT_MESSAGES_PER_S);
    let bounds = (1, u64::from(u32::MAX));
    let rate = section.within("rate_limit_messages_per_s", bounds, rate);
    let config = ListenerConfig {
        address,
        tls,
        users,
        rate_limit_messages_per_s: u32::try_from(rate).unwrap_or(u32::MAX),
    };
    if !insecure {
        check_reach(section, &config);
    }
    if config.address.is_none() && config.tls.is_none() {
        section.wrong(
            "address",
            "is `none`, and there is no [source.listener.tls]: nobody could publish",
        );
    }
    config
}

fn plain_address(section: &mut Section) -> Option<SocketAddr> {
    let default = loopback(1883);
    let read = section.read("address", |text: String| match text.as_str() {
        NONE => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            format!("is \"{text}\"; expected address and port, like `{default}`, or `{NONE}`")
        }),
    });
    read.unwrap_or(Some(default))
}

/// Says what others could reach and should not.
fn check_reach(section: &Section, config: &ListenerConfig) {
    let remote = |address: &SocketAddr| !address.ip().is_loopback();
    if let Some(address) = config.address.filter(remote) {
        let reason = match config.users {
            Some(_) => "passwords would cross the network unencrypted",
            None => "nobody would have to say who they are",
        };
        let advice = format!(
            "is {address}, which others can reach, and {reason}: use 127.0.0.1 or `{NONE}` and \
             [source.listener.tls] for the others, or set `insecure_allow_remote = true` if the \
             network keeps strangers out"
        );
        section.wrong("address", advice);
    }
    if let Some(tls) = config.tls.as_ref().filter(|tls| remote(&tls.address)) {
        let clients = tls.clients.as_ref();
        let required = clients.is_some_and(|clients| clients.required);
        if config.users.is_none() && !required {
            let advice = format!(
                "is {}, which others can reach, and nobody would have to say who they are: set \
                 `users` in [source.listener], or `client_ca` and `client_certificate = \
                 \"required\"`, or `insecure_allow_remote = true`",
                tls.address
            );
            section.wrong("tls", advice);
        }
    }
}

fn tls(section: &mut Section, is_there: bool) -> Option<TlsConfig> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = address_or(section, SocketAddr::new(any, 8883));
    let mut file = |name: &'static str| {
        let path = section.optional::<PathBuf>(name);
        if path.is_none() && is_there {
            section.wrong(name, "is missing: the path of a PEM file is needed");
        }
        path.unwrap_or_default()
    };
    let (certificate, key) = (file("certificate"), file("key"));
    let clients = clients(section);
    is_there.then_some(TlsConfig {
        address,
        certificate,
        key,
        clients,
    })
}

fn clients(section: &mut Section) -> Option<ClientCertificates> {
    let ca = section.optional::<PathBuf>("client_ca");
    let revoked = section.optional::<PathBuf>("client_crl");
    let required = section.read("client_certificate", |text: String| match text.as_str() {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(format!("is \"{text}\"; expected `required` or `optional`")),
    });
    let publish = section.read("publish", |filters: Vec<String>| {
        match Grants::parse(&filters, false) {
            Ok(_) => Ok(filters),
            Err((filter, error)) => Err(format!("holds \"{filter}\", which {error}")),
        }
    });
    let read = section.optional::<bool>("read");
    let Some(ca) = ca else {
        let given = [
            ("client_crl", revoked.is_some()),
            ("client_certificate", required.is_some()),
            ("publish", publish.is_some()),
            ("read", read.is_some()),
        ];
        for (name, _) in given.into_iter().filter(|(_, given)| *given) {
            section.wrong(
                name,
                "needs `client_ca`: who signs the clients' certificates",
            );
        }
        return None;
    };
    Some(ClientCertificates {
        ca,
        revoked,
        required: required.unwrap_or(true),
        publish: publish.unwrap_or_else(|| vec!["#".to_owned()]),
        read: read.unwrap_or(false),
    })
}
