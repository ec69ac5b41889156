//! `device import`, through the program, against an emulator whose requests can be counted.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroU32,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::service::{Service, assert_without, directory};
use crate::support::{Run, program};
use iot_enroll::emulator::{DeviceProperties, Emulator, Fault};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An emulator in this process and a directory for the files.
struct Lab {
    emulator: Emulator,
    directory: TempDir,
    _runtime: Runtime,
}

impl Lab {
    fn start() -> Self {
        Self::limited(None)
    }

    fn limited(rate: Option<u32>) -> Self {
        let runtime = Runtime::new().expect("threads");
        let rate = rate.map(|rate| NonZeroU32::new(rate).expect("a rate"));
        let emulator = runtime.block_on(Emulator::builder().rate(rate).start()).expect("a free loopback port");
        Self { emulator, directory: directory(), _runtime: runtime }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, content: impl AsRef<[u8]>) {
        fs::write(self.path().join("devices.csv"), content).expect("written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.path());
        command.args(arguments).args(["--endpoint", &self.emulator.endpoint()]);
        command.env("IOT_ENROLL_TOKEN", self.emulator.token());
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let run = Run::of(self.command(arguments).args(["--rate", "1000000"]));
        assert_without(&run, self.emulator.token());
        run
    }

    /// Imports `devices.csv`.
    fn import(&self, arguments: &[&str]) -> Run {
        self.run(&[&["device", "import", "--file", "devices.csv"], arguments].concat())
    }

    /// The same with this content.
    fn import_of(&self, content: impl AsRef<[u8]>) -> Run {
        self.write(content);
        self.import(&[])
    }

    /// Each row's id, line, outcome and message.
    fn results(&self) -> Vec<[String; 4]> {
        let text = fs::read_to_string(self.path().join("devices.results.csv")).expect("the results");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("IOTC_DEVICEID,line,outcome,message"));
        lines.map(fields).collect()
    }

    /// Id and outcome of each row.
    fn outcomes(&self) -> Vec<(String, String)> {
        self.results().into_iter().map(|[id, _, outcome, _]| (id, outcome)).collect()
    }

    /// The devices of the service.
    fn devices(&self) -> Vec<Value> {
        let listed = self.run(&["device", "list", "-o", "json"]).json();
        listed.as_array().expect("a list").clone()
    }

    fn ids(&self) -> Vec<String> {
        self.devices().iter().map(|device| device["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// How many PUTs of each device were carried out and answered.
    fn puts(&self) -> BTreeMap<String, usize> {
        let mut puts = BTreeMap::new();
        for request in self.emulator.requests() {
            if request.method == "PUT" && request.status == Some(200) {
                *puts.entry(request.path.trim_start_matches("/api/devices/").to_owned()).or_default() += 1;
            }
        }
        puts
    }

    /// Every device of `many` is there and was sent once with success, no other.
    fn assert_each_once(&self, count: usize) {
        let wanted = many_ids(count);
        assert_eq!(self.ids(), wanted);
        assert!(self.puts().keys().eq(&wanted) && self.puts().values().all(|&count| count == 1), "{:?}", self.puts());
    }
}

/// The four fields of a line of CSV, of which the last may be quoted.
fn fields(line: &str) -> [String; 4] {
    let parts: Vec<_> = line.splitn(4, ',').map(|part| part.trim_matches('"').replace("\"\"", "\"")).collect();
    parts.try_into().expect("four fields")
}

fn many_ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("d{number:04}")).collect()
}

fn many(count: usize) -> String {
    let rows: String = many_ids(count).iter().map(|id| format!("{id},Name of {id}\n")).collect();
    format!("IOTC_DEVICEID,IOTC_DEVICENAME\n{rows}")
}

fn pair(id: &str, outcome: &str) -> (String, String) {
    (id.to_owned(), outcome.to_owned())
}

#[test]
fn the_outcome_of_each_row_is_reported_in_file_order() {
    let lab = Lab::start();
    let device = |id: &str, name: &str| DeviceProperties::new(id).display_name(name);
    lab.emulator
        .add_devices([device("same", "Same"), device("other", "Other"), device("apart", "Apart")])
        .expect("added");
    lab.write("IOTC_DEVICEID,IOTC_DEVICENAME\nnew,New\nsame,Same\nother,Another\nnot an id,N\nlast,\n");
    let run = lab.import(&["-o", "json"]);
    let summary: Value = serde_json::from_str(&run.stdout).expect("one JSON document");
    let results = lab.results();
    let failure = json!({ "line": 5, "id": "not an id", "message": results[3][3] });
    let told = json!({
        "results": "devices.results.csv", "created": 2, "replaced": 0, "unchanged": 1, "exists": 1, "failed": 1,
        "failures": [failure], "remaining": 0,
    });
    assert_eq!(summary, told);
    assert!(run.fails(1).contains("--replace"));
    let told: Vec<_> = results.iter().map(|[id, line, outcome, _]| [id.as_str(), line, outcome]).collect();
    assert_eq!(
        told,
        [
            ["new", "2", "created"],
            ["same", "3", "unchanged"],
            ["other", "4", "exists"],
            ["not an id", "5", "failed"],
            ["last", "6", "created"],
        ]
    );
    assert!(results[2][3].contains("differs") && !results[3][3].is_empty() && results[0][3].is_empty(), "{results:?}");
    assert_eq!(lab.ids(), ["apart", "last", "new", "other", "same"]);
    assert_eq!(lab.puts().into_keys().collect::<Vec<_>>(), ["last", "new"]);

    let summary: Value = serde_json::from_str(&lab.import(&["--replace", "-o", "json"]).stdout).expect("JSON");
    assert_eq!((&summary["replaced"], &summary["unchanged"], &summary["failed"]), (&json!(1), &json!(3), &json!(1)));
    assert_eq!(lab.devices()[3]["displayName"], "Another");
}

#[test]
fn people_read_how_it_went() {
    let lab = Lab::start();
    let run = lab.import_of("IOTC_DEVICEID\na\nb b\n");
    assert!(run.stdout.contains("1 created, 1 failed") && run.stdout.contains("devices.results.csv"), "{}", run.stdout);
    let error = run.fails(1);
    assert!(error.contains("line 3") && error.contains("b b"), "{error}");
    let run = lab.import(&["-q"]);
    assert_eq!(run.stderr, "");
    run.fails(1);
}

#[test]
fn what_spreadsheets_write_can_be_read() {
    let lab = Lab::start();
    let text = "\u{feff}iotc_deviceid,\"IOTC_DEVICENAME\",X\r\na,\"Pump, \"\"north\"\"\",1\r\n\r\n\"b\",\"two lines\",2\r\n c ,Tür,\r\n";
    let run = lab.import_of(text);
    assert!(run.stderr.contains("not used: X"), "{}", run.stderr);
    run.ok();
    let names: Vec<_> = lab.devices().iter().map(|device| device["displayName"].clone()).collect();
    assert_eq!(names, ["Pump, \"north\"", "two lines", "Tür"]);
    let lines: Vec<_> = lab.results().into_iter().map(|[id, line, ..]| (id, line)).collect();
    assert_eq!(lines, [pair("a", "2"), pair("b", "4"), pair("c", "5")]);
}

#[test]
fn the_further_columns_reach_the_service() {
    let lab = Lab::start();
    let head = "organizations,enabled,IOTC_DEVICENAME,Template,simulated,IOTC_DEVICEID\n";
    lab.import_of(format!("{head}seattle;redmond,no,Full,dtmi:a:B;1,TRUE,full\n,,,,,bare\n")).ok();
    let mut devices = lab.devices();
    for device in &mut devices {
        device.as_object_mut().expect("an object").remove("etag");
    }
    let bare =
        json!({ "id": "bare", "displayName": "bare", "enabled": true, "provisioned": false, "simulated": false });
    let full = json!({
        "id": "full", "displayName": "Full", "template": "dtmi:a:B;1", "enabled": false, "provisioned": false,
        "simulated": true, "organizations": ["seattle", "redmond"],
    });
    assert_eq!(devices, [bare, full]);
    lab.import(&[]).ok();
    assert_eq!(lab.outcomes(), [pair("full", "unchanged"), pair("bare", "unchanged")]);
}

#[test]
fn bad_rows_fail_and_the_others_are_done() {
    let lab = Lab::start();
    let mut text = b"IOTC_DEVICEID,IOTC_DEVICENAME,enabled,simulated\n".to_vec();
    for row in [
        &b"good1,n,true,false"[..],
        b"bad id,n,,",
        b",no id,,",
        b"flag,n,maybe,",
        b"latin,T\xfcr,,",
        b"short",
        b"long,n,,,x,y",
        b"good1,again,,",
        b"GOOD1,case,,",
        b"_,n,,",
        b"good2,n,yes,0",
    ] {
        text.extend_from_slice(row);
        text.push(b'\n');
    }
    let error = lab.import_of(&text).fails(1);
    let results = lab.results();
    let outcomes: Vec<_> = results.iter().map(|[_, line, outcome, _]| (line.as_str(), outcome.as_str())).collect();
    let failed = ["3", "4", "5", "6", "8", "9", "10", "11"];
    for (line, outcome) in outcomes {
        assert_eq!(outcome, if failed.contains(&line) { "failed" } else { "created" }, "line {line}");
        assert_eq!(error.contains(&format!("line {line}:")), failed.contains(&line), "line {line}");
    }
    assert_eq!(results.len(), 11);
    for (row, why) in [(3, "maybe"), (4, "UTF-8"), (6, "6 fields"), (7, "line 2"), (8, "line 2")] {
        assert!(results[row][3].contains(why), "{:?}", results[row]);
    }
    assert_eq!(lab.ids(), ["good1", "good2", "short"]);
}

#[test]
fn a_quote_that_is_not_closed_swallows_no_row_without_a_word() {
    let lab = Lab::start();
    let error = lab.import_of("IOTC_DEVICEID,X,IOTC_DEVICENAME\na,,A\nb,,\"B\nc,,C\nd,,D\n").fails(1);
    assert!(error.contains("line 3: b: the field IOTC_DEVICENAME") && error.contains("to line 5"), "{error}");
    assert_eq!(lab.outcomes(), [pair("a", "created"), pair("b", "failed")]);
    // One that a later quote closes by chance, in a column that is not even used.
    let error =
        lab.import_of("IOTC_DEVICEID,X,IOTC_DEVICENAME\na,,A\nb,\"x,B\nc,\"y\",C\r\nd,\"\u{1b}\",D\ne,,E\n").fails(1);
    assert!(error.contains("the field X, whose quote begins on line 3, goes on to line 4"), "{error}");
    assert!(error.contains("line 5: d: ") && error.contains("control character"), "{error}");
    assert_eq!(lab.ids(), ["a", "e"]);
    assert!(lab.import_of("IOTC_DEVICEID,\"X\na,A\n").fails(1).contains("quote"));
}

#[test]
fn a_file_that_cannot_be_imported_at_all_is_refused_before_anything_is_sent() {
    let lab = Lab::start();
    for (content, why) in [
        ("", "IOTC_DEVICEID"),
        ("IOTC_DEVICEID,IOTC_DEVICENAME\n", "no rows"),
        ("id,name\na,b\n", "IOTC_DEVICEID"),
        ("IOTC_DEVICEID,iotc_deviceid\na,b\n", "twice"),
        ("IOTC_DEVICEID,enabled,Enabled\na,,\n", "twice"),
        ("IOTC_DEVICEID;IOTC_DEVICENAME\na;b\n", "semicolons"),
        ("IOTC_DEVICEID\tIOTC_DEVICENAME\na\tb\n", "tabs"),
        ("IOTC_DEVICEID,line,outcome,message\na,2,created,\n", "results of an import"),
        ("I\0O\0T\0C\0_\0D\0E\0V\0I\0C\0E\0I\0D\0", "UTF-16"),
    ] {
        let error = lab.import_of(content).fails(1);
        assert!(error.contains(why) && error.contains("devices.csv"), "{content:?}: {error}");
    }
    assert!(lab.run(&["device", "import", "--file", "missing.csv"]).fails(1).contains("missing.csv"));
    assert_eq!(lab.emulator.requests(), []);
    assert!(!lab.path().join("devices.results.csv").exists());
}

#[test]
fn an_unusable_results_file_is_reported_before_anything_is_sent() {
    let lab = Lab::start();
    lab.write(many(3));
    fs::write(lab.path().join("notes.csv"), "my,notes\n").expect("written");
    for results in ["notes.csv", "missing/results.csv", "."] {
        let error = lab.import(&["--results", results]).fails(1);
        assert!(error.contains(results), "{error}");
    }
    lab.import(&["--results", "-"]).fails(2);
    assert_eq!(fs::read_to_string(lab.path().join("notes.csv")).expect("read"), "my,notes\n");
    assert_eq!(lab.emulator.requests(), []);
    if Path::new("/dev/full").exists() {
        assert!(lab.import(&["--results", "/dev/full"]).fails(1).contains("/dev/full"));
        assert!(lab.puts().is_empty());
    }
    lab.import(&["--results", "mine.csv"]).ok();
    assert!(fs::read_to_string(lab.path().join("mine.csv")).expect("read").contains("d0002,4,created"));
    lab.import(&["--results", "mine.csv"]).ok();
    assert!(fs::read_to_string(lab.path().join("mine.csv")).expect("read").contains("d0002,4,unchanged"));
}

#[test]
fn faults_of_the_service_fail_no_row_and_lose_none() {
    let lab = Lab::start();
    lab.write(many(60));
    for fault in [
        "429,method=PUT,path=d0003",
        "503,method=PUT,path=d0010,times=2",
        "close-after,method=PUT,path=d0020",
        "truncate,method=PUT,path=d0030",
        "close-before,method=PUT,path=d0040",
        "503,method=GET",
    ] {
        lab.emulator.inject(fault.parse::<Fault>().expect("a fault")).expect("injected");
    }
    lab.import(&[]).ok();
    assert!(lab.outcomes().iter().map(|(id, _)| id).eq(&many_ids(60)));
    assert!(lab.outcomes().iter().all(|(_, outcome)| outcome == "created"), "{:?}", lab.outcomes());
    assert_eq!(lab.ids(), many_ids(60));
}

#[test]
fn a_refused_row_is_reported_with_the_service_message() {
    let lab = Lab::start();
    lab.write(many(5));
    lab.emulator.inject("422,method=PUT,path=d0002".parse().expect("a fault")).expect("injected");
    lab.import(&[]).fails(1);
    let results = lab.results();
    assert_eq!(results[2][2], "failed");
    assert!(results[2][3].contains("PUT devices/d0002") && results[2][3].contains("422"), "{results:?}");
    // The next run has only that one to do.
    lab.import(&[]).ok();
    assert_eq!(lab.outcomes()[2], pair("d0002", "created"));
    lab.assert_each_once(5);
}

#[test]
fn a_killed_import_is_resumed_and_sends_no_row_twice() {
    const COUNT: usize = 60;
    for moment in [0, 1, 7, 30, 59] {
        let lab = Lab::start();
        lab.write(many(COUNT));
        let mut killed = lab.command(&["device", "import", "--file", "devices.csv", "--rate", "200"]);
        let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        wait_until(|| lab.puts().len() >= moment);
        killed.kill().expect("killed");
        killed.wait().expect("its end");
        // What was on its way still arrives.
        wait_until(|| {
            let puts = lab.puts();
            lab.ids();
            lab.puts() == puts
        });
        let written = fs::read_to_string(lab.path().join("devices.results.csv")).unwrap_or_default();
        let told = written.lines().skip(1).count();
        lab.import(&[]).ok();
        lab.assert_each_once(COUNT);
        let outcomes = lab.outcomes();
        assert!(outcomes.iter().map(|(id, _)| id).eq(&many_ids(COUNT)));
        let before = outcomes.iter().filter(|(_, outcome)| outcome == "unchanged").count();
        assert!(before >= moment.max(told), "{before} were there, {told} were told, killed at {moment}");
        assert!(outcomes.iter().all(|(_, outcome)| outcome == "unchanged" || outcome == "created"), "{outcomes:?}");
    }
}

#[track_caller]
fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn two_thousand_devices_against_a_rate_limit_arrive_once_each() {
    const COUNT: usize = 2000;
    let lab = Lab::limited(Some(500));
    lab.write(many(COUNT));
    // Faster than the service allows: it has to answer 429 and lose nothing by it.
    let run = Run::of(&mut lab.command(&["device", "import", "--file", "devices.csv", "--rate", "1000"]));
    run.ok();
    let outcomes = lab.outcomes();
    assert!(outcomes.iter().map(|(id, _)| id).eq(&many_ids(COUNT)));
    assert!(outcomes.iter().all(|(_, outcome)| outcome == "created"));
    let puts = lab.puts();
    assert!(puts.keys().eq(&many_ids(COUNT)) && puts.values().all(|&count| count == 1));
    assert!(lab.emulator.requests().iter().any(|request| request.status == Some(429)), "the limit was met");
}

#[test]
fn standard_input_can_be_imported() {
    let service = Service::start();
    let directory = directory();
    fs::write(directory.path().join("piped"), many(2)).expect("written");
    let piped = fs::File::open(directory.path().join("piped")).expect("opened");
    Run::of(service.command(directory.path(), &["device", "import", "--file", "-"]).stdin(piped)).ok();
    let results = fs::read_to_string(directory.path().join("devices.results.csv")).expect("read");
    assert!(results.contains("d0001,3,created"), "{results}");
}

#[test]
fn a_device_whose_id_differs_only_by_case_is_not_changed() {
    // Few devices are asked for one by one, many are listed.
    for count in [3, 150] {
        let lab = Lab::start();
        lab.emulator.add_devices([DeviceProperties::new("D0000")]).expect("added");
        lab.write(many(count));
        lab.import(&["--replace"]).ok();
        assert_eq!(lab.puts().len(), count - 1);
        let [id, _, outcome, message] = lab.results().swap_remove(0);
        assert_eq!((id.as_str(), outcome.as_str()), ("d0000", "exists"));
        assert!(message.contains("D0000"), "{message}");
    }
}

#[test]
fn replacing_changes_what_the_file_names_and_keeps_the_rest() {
    let lab = Lab::start();
    let device = |id: &str| {
        DeviceProperties::new(id)
            .display_name("Old")
            .template("dtmi:a:B;1")
            .enabled(false)
            .simulated(true)
            .organizations(["seattle"])
    };
    lab.emulator.add_devices([device("a"), device("b"), device("c")]).expect("added");
    let mut expected = lab.devices();
    lab.write("IOTC_DEVICEID,IOTC_DEVICENAME,enabled\na,New,\nb,,yes\nc,Old,\n");
    lab.emulator.inject("close-after,method=PATCH,path=/a".parse().expect("a fault")).expect("injected");
    lab.import(&["--replace"]).ok();
    assert_eq!(lab.outcomes(), [pair("a", "replaced"), pair("b", "replaced"), pair("c", "unchanged")]);
    let found = lab.devices();
    expected[0]["displayName"] = json!("New");
    expected[1]["enabled"] = json!(true);
    for (expected, found) in expected.iter_mut().zip(&found) {
        assert_eq!(expected["etag"] == found["etag"], found["id"] == "c");
        expected["etag"] = found["etag"].clone();
    }
    assert_eq!(found, expected);
}

#[test]
fn a_results_file_belongs_to_one_import_at_a_time() {
    let lab = Lab::start();
    lab.write(many(3));
    lab.import(&[]).ok();
    let before = lab.results();
    let held = fs::File::open(lab.path().join("devices.results.csv")).expect("opened");
    held.lock().expect("locked");
    let sent = lab.emulator.requests().len();
    let error = lab.import(&[]).fails(1);
    assert!(error.contains("another import") && error.contains("devices.results.csv"), "{error}");
    assert_eq!((lab.results(), lab.emulator.requests().len()), (before, sent));
    drop(held);
    lab.import(&[]).ok();
}

#[test]
fn an_error_that_affects_every_row_stops_the_import_and_the_next_run_resumes() {
    for fault in ["401,method=PUT,times=1", "403,method=PUT,times=130", "501,method=PUT,times=130"] {
        let lab = Lab::start();
        lab.write(many(500));
        lab.emulator.inject(fault.parse().expect("a fault")).expect("injected");
        let run = lab.import(&["-o", "json"]);
        let summary: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let error = run.fails(1);
        let told = lab.results().len();
        assert!(error.contains(&format!("stopped after {told} of 500 rows")) && error.contains(&fault[..3]), "{error}");
        assert!(told < 200 && summary["remaining"] == json!(500 - told), "{fault}: {summary}");
        let created = summary.get("created").unwrap_or(&json!(0)).clone();
        assert_eq!(created, json!(lab.ids().len()));
        if fault.starts_with("401") {
            lab.import(&[]).ok();
            lab.assert_each_once(500);
        }
    }
}

#[test]
fn a_row_that_the_token_has_no_right_to_fails_while_the_others_are_done() {
    let lab = Lab::start();
    lab.write(many(3));
    lab.import(&[]).ok();
    lab.write(many(100));
    lab.emulator.inject("403,method=PUT,path=d0050".parse().expect("a fault")).expect("injected");
    let error = lab.import(&[]).fails(1);
    assert!(error.contains("line 52") && error.contains("403"), "{error}");
    assert_eq!(lab.ids().len(), 99);
}

#[test]
fn a_row_that_takes_long_does_not_hold_up_the_others() {
    let lab = Lab::start();
    lab.write(many(500));
    lab.emulator.inject("delay=1000s,method=PUT,path=d0000".parse().expect("a fault")).expect("injected");
    let mut run = lab.command(&["device", "import", "--file", "devices.csv", "--rate", "1000000"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    wait_until(|| lab.puts().len() == 499);
    run.kill().expect("killed");
    run.wait().expect("its end");
}

#[test]
fn a_full_disk_stops_the_import_and_the_progress_is_reported() {
    let lab = Lab::start();
    lab.write(many(500));
    let import = lab.command(&["device", "import", "--file", "devices.csv", "--rate", "1000000"]);
    let mut limited = Command::new("sh");
    limited.current_dir(lab.path()).env("IOT_ENROLL_TOKEN", lab.emulator.token());
    // A file may have one block, and the signal that says so is passed over.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"]);
    limited.arg(import.get_program()).args(import.get_args());
    let run = Run::of(&mut limited);
    assert!(run.stdout.contains(" created."), "{}", run.stdout);
    let error = run.fails(1);
    assert!(error.contains("could not write devices.results.csv") && error.contains("stopped after"), "{error}");
    lab.import(&[]).ok();
    lab.assert_each_once(500);
}

#[test]
fn lines_are_counted_with_every_line_ending() {
    let lab = Lab::start();
    lab.import_of("IOTC_DEVICEID\ra\ra\r\rb\r").fails(1);
    let lines: Vec<_> = lab.results().into_iter().map(|[id, line, outcome, _]| (id, line, outcome)).collect();
    let row = |id: &str, line: &str, outcome: &str| (id.to_owned(), line.to_owned(), outcome.to_owned());
    assert_eq!(lines, [row("a", "2", "created"), row("a", "3", "failed"), row("b", "5", "created")]);
}

#[test]
fn a_file_may_be_larger_than_any_certificate() {
    let lab = Lab::start();
    let long = "x".repeat(1 << 20);
    let rows: String = (0..17).map(|number| format!("d{number:02},{long}\n")).collect();
    lab.import_of(format!("IOTC_DEVICEID,X\n{rows}")).ok();
    assert_eq!(lab.ids().len(), 17);
}

#[test]
fn what_an_interrupted_rewrite_left_is_removed_by_the_next_run() {
    let lab = Lab::start();
    let [left, other] = [".devices.results.csv.x7Gq2b.tmp", ".devices.results.csv.mine.tmp"];
    let path = |name: &str| lab.path().join(name);
    fs::write(path(left), "IOTC_DEVICEID,line,outcome,message\na,2,created,\n").expect("written");
    fs::write(path(other), "somebody else's").expect("written");
    lab.import_of("IOTC_DEVICEID\na\n").ok();
    assert!(!path(left).exists() && path(other).exists());
}

#[test]
fn a_link_in_the_place_of_the_results_is_not_followed() {
    let lab = Lab::start();
    let target = lab.path().join("target");
    std::os::unix::fs::symlink(&target, lab.path().join("devices.results.csv")).expect("a link");
    let refusal = lab.import_of("IOTC_DEVICEID\na\n").fails(1);
    assert!(refusal.contains("devices.results.csv") && refusal.contains("link"), "{refusal}");
    assert!(!target.exists());
}
