//! What parses, what does not, and that the help is whole.

use clap::CommandFactory;
use modelet_host::nn::backend::BackendKind;

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

fn refusal(line: &str) -> String {
    let error = parse(line).expect_err(line);
    assert_eq!(error.exit_code(), i32::from(exit::Exit::Usage.code()), "{line}");
    error.to_string()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_shown_command_teaches_by_example() {
    fn check(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            if sub.has_subcommands() {
                check(sub);
                continue;
            }
            let help = sub.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example", sub.get_name());
            assert!(sub.get_about().is_some(), "{} says not what it does", sub.get_name());
            for arg in sub.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(
                    arg.get_help().is_some(),
                    "{} {} has no help",
                    sub.get_name(),
                    arg.get_id()
                );
            }
        }
    }
    let command = Cli::command();
    check(&command);
    let help = command.clone().render_help().to_string();
    assert!(help.contains("Exit codes:") && !help.contains("compile-worker"), "{help}");
}

#[test]
fn changing_commands_have_a_dry_run() {
    for line in [
        "modelet setup --dry-run",
        "modelet publish m 1 --onnx f --dry-run",
        "modelet update m@1 --label a=b --dry-run",
        "modelet alias set m live 1 --dry-run",
        "modelet alias rollback m live --dry-run",
        "modelet alias remove m canary --dry-run",
        "modelet delete m --dry-run",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn json_and_server_stand_before_or_behind_the_command() {
    for line in [
        "modelet --json --server http://h:1 models",
        "modelet models --json --server http://h:1",
        "modelet alias list m --json --server http://h:1",
    ] {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert!(cli.global.json, "{line}");
        assert_eq!(cli.global.server, "http://h:1");
    }
}

#[test]
fn serve_needs_no_option() {
    let Ok(Command::Serve(args)) = parse("modelet serve") else { panic!("serve") };
    assert_eq!(args.listen.to_string(), "127.0.0.1:8080");
    assert!(!args.insecure_no_auth && !args.check && args.log == LogForm::Text);
    let Ok(Command::Serve(args)) = parse("modelet serve --listen [::1]:0 --data-dir d") else {
        panic!("serve with options")
    };
    assert_eq!((args.listen.port(), args.data_dir().unwrap()), (0, PathBuf::from("d")));
    assert!(refusal("modelet serve --listen 8080").contains("--listen"));
}

#[test]
fn publish_takes_one_kind_of_code() {
    let line = "modelet publish m 1.0.0 --onnx a.onnx --with w.bin --asset t/v.txt=x=y.txt \
                --backend rten --accuracy -0.5 --accuracy-method mse --label a=b=c --alias canary";
    let Ok(Command::Publish(args)) = parse(line) else { panic!("{line}") };
    assert_eq!(args.assets[0].name.as_str(), "t/v.txt");
    assert_eq!(args.assets[0].path, PathBuf::from("x=y.txt"));
    assert_eq!(args.annotations.accuracy, Some(-0.5));
    assert_eq!(args.annotations.labels[0].value, "b=c");
    assert_eq!(args.backend, Some(Backend::Rten));

    assert!(refusal("modelet publish m 1").contains("--onnx"));
    assert!(refusal("modelet publish m 1 --onnx a --component b").contains("cannot be used with"));
    assert!(refusal("modelet publish M 1 --onnx a").contains("model name"));
    assert!(refusal("modelet publish m 1/2 --onnx a").contains("version name"));
    assert!(refusal("modelet publish m 1 --onnx a --asset ../x=f").contains("asset name"));
    assert!(refusal("modelet publish m 1 --onnx a --accuracy 0.9").contains("--accuracy-method"));
    assert!(
        refusal("modelet publish m 1 --onnx a --accuracy nan --accuracy-method x")
            .contains("finite")
    );
    assert!(refusal("modelet publish m 1 --onnx a --label =b").contains("KEY=VALUE"));
    assert!(refusal("modelet publish m 1 --onnx a --min-instances -1").contains("-1"));
}

#[test]
fn targets_name_a_version_or_an_alias_or_neither() {
    let target = |text: &str| text.parse::<ModelTarget>();
    assert_eq!(target("m").unwrap().version, None);
    assert_eq!(target("m@1.0.0+b").unwrap().to_string(), "m@1.0.0+b");
    assert_eq!(target("m@canary").unwrap().to_string(), "m@canary");
    for bad in ["", "@1", "m@", "m@a@b", "m@../x", "m@a b"] {
        assert!(target(bad).is_err(), "{bad}");
    }
    assert!(refusal("modelet update m --label a=b").contains("NAME@VERSION"));
}

#[test]
fn weights_and_etags_are_checked() {
    let line = "modelet alias set m live 1=90 2=10 --if-match \"12\"";
    let Ok(Command::Alias(AliasCommand::Set(args))) = parse(line) else { panic!("{line}") };
    assert_eq!(args.targets[1].weight, Some(10));
    assert_eq!(args.if_match.as_deref(), Some("12"));
    assert!(refusal("modelet alias set m live").contains("VERSION[=WEIGHT]"));
    assert!(refusal("modelet alias set m live 1=0").contains("above 0"));
    assert!(refusal("modelet alias set m 1live 1").contains("alias name"));
    assert!(refusal("modelet alias set m live 1 --if-match a\"b").contains("ETag"));
}

#[test]
fn windows_are_the_ones_the_server_keeps() {
    for window in ["1m", "5m", "1h", "lifetime"] {
        assert!(parse(&format!("modelet efficiency --window {window}")).is_ok());
    }
    assert!(refusal("modelet efficiency --window 2m").contains("lifetime"));
}

#[test]
fn the_server_can_start_its_workers() {
    let limits = "--memory-bytes 1073741824 --cpu-s 60 --file-bytes 9";
    let line = format!("modelet compile-worker a.wasm b.cwasm {limits}");
    let Ok(Command::CompileWorker(args)) = parse(&line) else { panic!("{line}") };
    let parsed = args.limits.limits();
    assert_eq!((parsed.memory_bytes, parsed.cpu_s, parsed.file_bytes), (1 << 30, 60, 9));
    assert_eq!((args.source, args.output), ("a.wasm".into(), "b.cwasm".into()));

    // Locations are names of assets, which may look like anything.
    let line = format!(
        "modelet graph-worker g --external --cpu-s=1 w1 --external a=b w2 --backend rten --threads 2 {limits}"
    );
    let Ok(Command::GraphWorker(args)) = parse(&line) else { panic!("{line}") };
    let task = args.task().unwrap();
    let external: Vec<_> =
        task.external.iter().map(|(name, path)| (name.as_str(), path.to_str().unwrap())).collect();
    assert_eq!(external, [("--cpu-s=1", "w1"), ("a=b", "w2")]);
    assert_eq!((task.backend, task.threads.get()), (BackendKind::Rten, 2));
}
