//! The command `tributary-agent user`, and what `check` says of the files that are configured: the
//! program itself, with its arguments, standard input and exit codes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tributary_agent::source::access::password::Password;
use tributary_agent::source::access::store;

fn agent(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tributary-agent"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing has closed it by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// (exit code, standard output, standard error)
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn user(path: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let file = ["--file", path.to_str().unwrap()];
    let all = [&["user"], arguments, &file].concat();
    said(&agent(&all, input))
}

fn is_password(path: &Path, name: &str, secret: &str) -> bool {
    let users = store::load(path).unwrap();
    let (_, user) = users.find(name).unwrap();
    let password = Password::new(secret.as_bytes().to_vec());
    user.password.as_ref().unwrap().is(&password)
}

#[test]
fn a_user_is_added_changed_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let add = [
        "add",
        "pump-7",
        "--publish",
        "plant/%u/#",
        "--publish",
        "a/b",
    ];
    let (code, out, _) = user(&path, &add, "correct horse\nignored\n");
    assert_eq!(code, 0);
    assert!(
        out.ends_with("pump-7 is added, may publish to: plant/%u/# a/b\n"),
        "{out}"
    );
    assert!(is_password(&path, "pump-7", "correct horse"));
    // As a shell gives it, and as a file made on Windows does.
    for (input, secret) in [("another", "another"), ("a third\r\n", "a third")] {
        let (code, out, _) = user(&path, &["passwd", "pump-7"], input);
        assert!(code == 0 && out.contains("has a new password"), "{out}");
        assert!(is_password(&path, "pump-7", secret));
    }
    assert_eq!(user(&path, &["add", "reader", "--read"], "x\n").0, 0);
    let add = ["add", "own", "--publish", "x/%u/#", "--read"];
    let (_, out, _) = user(&path, &add, "x\n");
    assert!(
        out.ends_with("own is added, may publish to: x/%u/#; may read its own\n"),
        "{out}"
    );
    let add = ["add", "hall", "--read=hall/+/t", "--read=hall/%u"];
    assert_eq!(user(&path, &add, "x\n").0, 0);
    let (code, _, error) = user(&path, &["add", "no", "--read=a/#/b"], "x\n");
    assert!(
        code == 2 && error.contains("--read \"a/#/b\" holds `#`"),
        "{error}"
    );
    assert_eq!(user(&path, &["add", "device", "--no-password"], "").0, 0);
    let (_, list, _) = user(&path, &["ls"], "");
    let expected = "device\tpublish #\tcertificate only\n\
                    hall\tpublish \tread hall/+/t hall/%u\n\
                    own\tpublish x/%u/#\tread its own\n\
                    pump-7\tpublish plant/%u/# a/b\n\
                    reader\tpublish \tread #\n";
    assert_eq!(list, expected);
    assert_eq!(user(&path, &["rm", "pump-7"], "").0, 0);
    let (code, _, error) = user(&path, &["rm", "pump-7"], "");
    assert!(code == 1 && error.contains("no user \"pump-7\""), "{error}");
    assert_eq!(store::load(&path).unwrap().len(), 4);
}

#[test]
fn a_file_beside_the_person_needs_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let done = Command::new(env!("CARGO_BIN_EXE_tributary-agent"))
            .args(["user", "add", name, "--no-password", "--file", "users.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(
        store::load(&dir.path().join("users.toml")).unwrap().len(),
        2
    );
}

#[test]
fn what_cannot_be_changes_nothing_and_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let bad = [
        (["add", "a\nb"].as_slice(), "x\n", 2, "no user name"),
        (
            &["add", "a", "--publish", "a#"],
            "x\n",
            2,
            "`#` beside other characters",
        ),
        (&["add", "a"], "", 2, "1 to 1024 bytes"),
        (&["add", "a"], "\n", 2, "1 to 1024 bytes"),
        (&["add", "a"], &"x".repeat(2_000), 2, "1 to 1024 bytes"),
        (&["passwd", "a"], "x\n", 1, "user add NAME"),
        (&["ls"], "", 1, "user add NAME"),
        (&["add", "a", "--password", "x"], "", 2, "--password"),
    ];
    for (arguments, input, expected, words) in bad {
        let (code, out, error) = user(&path, arguments, input);
        assert_eq!(code, expected, "{arguments:?}: {error}");
        assert!(
            error.contains(words) && out.is_empty(),
            "{arguments:?}: {error}"
        );
        assert!(!path.exists(), "{arguments:?}");
    }
    for name in ["..", "a\"b", "../../x", "[users]", "-"] {
        let (code, _, error) = user(&path, &["add", "--no-password", "--", name], "");
        assert_eq!(code, 2, "behind -- stands no option: {error}");
        let file = path.to_str().unwrap();
        let all = ["user", "add", "--no-password", "--file", file, "--", name];
        assert_eq!(said(&agent(&all, "")).0, 0, "{name}");
    }
    let before = std::fs::read(&path).unwrap();
    let (code, _, error) = user(&path, &["add", ".."], "x\n");
    assert!(
        code == 1 && error.contains("a user \"..\" already"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(store::load(&path).unwrap().len(), 5);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_configuration_says_which_file() {
    let dir = tempfile::tempdir().unwrap();
    let (config, path) = (dir.path().join("agent.toml"), dir.path().join("users.toml"));
    let of_config = ["--config", config.to_str().unwrap()];
    std::fs::write(&config, "").unwrap();
    let all = [&["user", "add", "a"], &of_config[..]].concat();
    let (code, _, error) = said(&agent(&all, "x\n"));
    assert!(code == 2 && error.contains("which file?"), "{error}");
    let text = format!("[source.listener]\nusers = {path:?}\n");
    std::fs::write(&config, text).unwrap();
    assert_eq!(said(&agent(&all, "x\n")).0, 0);
    assert!(is_password(&path, "a", "x"));
}

#[test]
fn check_opens_what_is_configured_and_names_everything_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let pki = crate::listener::pki::Pki::new();
    let config = dir.path().join("agent.toml");
    let users = dir.path().join("users.toml");
    let check = || said(&agent(&["check", "--config", config.to_str().unwrap()], ""));
    let write = |certificate: &Path, ca: &Path| {
        let text = format!(
            "[source.listener]\nusers = {users:?}\n[source.listener.tls]\n\
             certificate = {certificate:?}\nkey = {:?}\nclient_ca = {ca:?}\n",
            pki.path("server.key")
        );
        std::fs::write(&config, text).unwrap();
    };
    write(&pki.path("missing.pem"), &pki.path("gone.pem"));
    let (code, _, error) = check();
    assert_eq!(code, 2);
    for words in [
        "`certificate`",
        "missing.pem: cannot be read",
        "`client_ca`",
        "gone.pem: cannot be read",
        "users.toml: cannot be read",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(user(&users, &["add", "a"], "x\n").0, 0);
    write(&pki.path("server.pem"), &pki.path("server.key"));
    let (code, _, error) = check();
    assert!(code == 2 && error.contains("`client_ca`"), "{error}");
    assert!(
        error.contains("server.key: holds no certificate in PEM"),
        "{error}"
    );
    pki.write("other.pem", &pki.device("x").certificate);
    write(&pki.path("other.pem"), &pki.path("ca.pem"));
    let (code, _, error) = check();
    assert!(code == 2 && error.contains("do not go together"), "{error}");
    write(&pki.path("server.pem"), &pki.path("ca.pem"));
    let (code, out, error) = check();
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("the configuration is good"), "{out}");
    assert!(
        error.contains("server.key is open to every user"),
        "a warning: {error}"
    );
}
