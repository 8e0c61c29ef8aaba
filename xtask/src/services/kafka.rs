//! Apache Kafka out of its jars on Maven Central: one node, KRaft, plain text on the loopback.

use super::{Started, answers, folder, free_port, start_by};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts it.
pub fn start(root: &Path, dir: &Path) -> Result<Started> {
    let libs = root.join("target/kafka");
    if !libs.join("whole").exists() {
        fetch(root, &libs)?;
    }
    let folder = folder(dir, "kafka")?;
    let (port, controller) = (free_port()?, free_port()?);
    let data = folder.join("data");
    let settings = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.network.threads=1
num.io.threads=2
",
        data.display()
    );
    fs::write(folder.join("server.properties"), settings)?;
    let java = format!(
        "java -Xms192m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dkafka.logs.dir=logs \
         -cp '{}/*'",
        libs.display()
    );
    start_by(
        &folder,
        &format!(
            "if [ ! -d data ]; then
    id=$({java} kafka.tools.StorageTool random-uuid 2>> log | tail -n 1)
    {java} kafka.tools.StorageTool format --standalone -t \"$id\" -c server.properties >> log 2>&1
fi
{java} kafka.Kafka server.properties >> log 2>&1 &
echo $! > pid
"
        ),
    )?;
    answers(port, &folder)?;
    Ok(Started {
        name: "KAFKA",
        env: vec![("URL", format!("127.0.0.1:{port}"))],
    })
}

/// The jars, once for all runs.
fn fetch(root: &Path, libs: &Path) -> Result<()> {
    let pom = root.join("tests/kafka/pom.xml");
    let status = Command::new("mvn")
        .args(["-B", "-q", "-f"])
        .arg(&pom)
        .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", libs.display()))
        .stdout(Stdio::null())
        .status()
        .context("running mvn (Debian: maven, default-jre-headless)")?;
    ensure!(status.success(), "mvn with {}: {status}", pom.display());
    fs::write(libs.join("whole"), "")?;
    Ok(())
}
