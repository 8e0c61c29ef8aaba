//! A stage that breaks ends the agent.

use super::*;

async fn agent(dir: &Path) -> (Agent, CancellationToken) {
    let text = format!(
        "[agent]\ndata_dir = \"{}\"\n[source.listener]\naddress = \"127.0.0.1:0\"\n",
        dir.display()
    );
    let config = Config::parse(&text, []).unwrap();
    let stop = CancellationToken::new();
    let settings = Settings::from_config(&config);
    let agent = start(settings, stop.clone()).await.unwrap();
    (agent, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_panics_ends_the_sources_and_the_agent() {
    for is_blocking in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let (mut agent, stop) = agent(place.path()).await;
        let mqtt = agent.mqtt;
        assert!(tokio::net::TcpStream::connect(mqtt).await.is_ok());
        match is_blocking {
            true => agent.stages.spawn_blocking(|| panic!("broken")),
            false => agent.stages.spawn(async { panic!("broken") }),
        };
        let ended = agent.join().await;
        assert!(matches!(ended, Err(PipelineError::Panic(_))), "{ended:?}");
        assert!(stop.is_cancelled());
        assert!(tokio::net::TcpStream::connect(mqtt).await.is_err());
    }
}
