//! Fleets sign in many sessions, and stop when the token fails.

use std::{fs, process::Stdio};

use crate::{
    lab::{Lab, run, uri},
    support::wait_until,
};

fn count(lab: &Lab, out: &str) -> usize {
    fs::read_to_string(lab.path().join(out).join("manifest.csv"))
        .map_or(0, |manifest| manifest.lines().count().saturating_sub(1))
}

#[test]
fn a_fleet_uses_as_many_sessions_as_the_token_has() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    for sessions in ["sessions:1", "sessions:3"] {
        let out = sessions.replace(':', "");
        let issue =
            ["cert", "fleet", "lab-root", "--ca-key", &uri("root"), "--count", "200", "--threads", "8", "--out", &out];
        let Some(mut command) = lab.faulty(sessions, &issue) else { return };
        run(&mut command).ok();
        assert_eq!(count(&lab, &out), 200);
        lab.run(&["cert", "verify", &format!("{out}/0000/device-200_fullchain.pem"), "--ca-cert", "labRoot_cert.pem"])
            .ok();
    }
    assert_eq!(lab.logins(), 2, "one login for each run");
}

#[test]
fn a_token_that_fails_stops_the_fleet_which_resumes() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    for (fault, reason) in [("removed:50", "CKR_DEVICE_REMOVED"), ("lie:50", "that its public key does not verify")] {
        let out = fault.replace(':', "");
        let issue =
            ["cert", "fleet", "lab-root", "--ca-key", &uri("root"), "--count", "300", "--threads", "4", "--out", &out];
        let Some(mut command) = lab.faulty(fault, &issue) else { return };
        let error = run(&mut command).fails(1);
        assert!(error.contains(reason) && error.contains("--resume"), "{error}");
        assert!(count(&lab, &out) < 51, "{}", count(&lab, &out));
        lab.run(&[&issue[..], &["--resume"]].concat()).ok();
        assert_eq!(count(&lab, &out), 300);
    }
}

#[test]
fn a_token_that_is_removed_stops_the_fleet() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let issue = ["cert", "fleet", "lab-root", "--ca-key", &uri("root"), "--count", "1000000", "--out", "fleet"];
    let child = lab.command(&issue).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    wait_until("a certificate", || count(&lab, "fleet") > 0);
    fs::rename(lab.path().join("tokens"), lab.path().join("removed")).expect("renamed");
    let error = crate::support::Run::ended(child.wait_with_output().expect("its end")).fails(1);
    assert!(error.contains("the token \"lab\" does not answer any more") && error.contains("--resume"), "{error}");
}

#[test]
fn every_thread_signs_at_the_same_time() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let issue = ["cert", "fleet", "lab-root", "--ca-key", &uri("root"), "--count", "20", "--threads", "4"];
    let Some(mut command) = lab.faulty("together:4", &issue) else { return };
    run(&mut command).ok();
}

#[test]
fn a_signal_stops_a_fleet_with_a_slow_token_after_the_devices_in_progress() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let issue = ["cert", "fleet", "lab-root", "--ca-key", &uri("root"), "--count", "3000", "--threads", "2"];
    let Some(mut command) = lab.faulty("slow:50", &issue) else { return };
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    // The directory has its name when it has a thousand devices.
    wait_until("a certificate", || lab.exists("fleet/.0000.tmp/device-0002_cert.pem"));
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(kill.success());
    let stopped = crate::support::Run::ended(child.wait_with_output().expect("its end"));
    assert!(stopped.status != 0 && stopped.stderr.contains("--resume"), "{}", stopped.stderr);
    let listed = count(&lab, "fleet");
    // All 3000 would take more than a minute, and the first directory half of it.
    assert!((1..500).contains(&listed), "{listed} devices are listed");
}
