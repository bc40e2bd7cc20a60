use super::*;

fn near(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() <= 0.02 * b.abs().max(0.01))
}

#[test]
fn nothing_seen_is_nothing_said() {
    assert_eq!(Line::default().at(5.0), None);
    assert_eq!(Lengths::default().predict(&"m".into(), None, Some(10)), None);
    assert_eq!(Speed::default().service_s(10, Some(10.0)), None);
    assert_eq!(Speed::default().load_s(), None);
    assert!((Calibration::default().factor() - 1.0).abs() < 1e-9);
}

#[test]
fn a_line_is_found_and_followed_when_it_moves() {
    let mut line = Line::default();
    for n in 0..50 {
        let x = f64::from(n % 10) * 100.0;
        line.add(x, 0.2 + 0.001 * x);
    }
    assert!(near(line.at(0.0), 0.2) && near(line.at(2_000.0), 2.2), "{:?}", line.at(2_000.0));
    for n in 0..200 {
        let x = f64::from(n % 10) * 100.0;
        line.add(x, 0.4 + 0.002 * x);
    }
    assert!(near(line.at(1_000.0), 2.4), "{:?}", line.at(1_000.0));
}

#[test]
fn equal_observations_say_nothing_of_the_slope_but_the_mean_is_right() {
    let mut line = Line::default();
    for _ in 0..20 {
        line.add(100.0, 1.0);
    }
    assert!(near(line.at(100.0), 1.0));
    assert!(line.at(0.0).is_some_and(|y| (0.0..=1.0).contains(&y)));
}

#[test]
fn lengths_are_told_by_key_then_by_model_and_never_beyond_the_bound() {
    let (model, long, short): (Arc<str>, Arc<str>, Arc<str>) = ("m".into(), "long".into(), "short".into());
    let mut lengths = Lengths::default();
    for _ in 0..20 {
        lengths.finished(&model, Some(&long), None, 500);
        lengths.finished(&model, Some(&short), None, 10);
    }
    assert!(near(lengths.predict(&model, Some(&long), None), 500.0));
    assert!(near(lengths.predict(&model, Some(&short), None), 10.0));
    let other = lengths.predict(&model, Some(&"new".into()), None).expect("the model's own");
    assert!((10.0..500.0).contains(&other), "{other}");
    lengths.finished(&model, None, Some(20), 31);
    assert_eq!(lengths.predict(&model, None, Some(20)), Some(20.0));
    assert_eq!(lengths.predict(&"other".into(), None, None), None);
}

#[test]
fn an_unknown_bound_is_told_by_the_part_that_answers_had_of_others() {
    let model: Arc<str> = "m".into();
    let mut lengths = Lengths::default();
    lengths.finished(&model, None, None, 300);
    assert_eq!(lengths.predict(&model, None, Some(10)), None, "an answer without a bound says nothing of one with");
    for _ in 0..20 {
        lengths.finished(&model, None, Some(4), 4);
    }
    assert!(near(lengths.predict(&model, None, Some(10)), 10.0) && near(lengths.predict(&model, None, Some(200)), 200.0));
    for _ in 0..100 {
        lengths.finished(&model, None, Some(4_000), 400);
    }
    assert!(near(lengths.predict(&model, None, Some(200)), 20.0));
}

#[test]
fn remembered_keys_are_bounded() {
    let mut lengths = Lengths::default();
    for n in 0..3 * MOST_KEYS {
        lengths.finished(&"m".into(), Some(&n.to_string().into()), None, 5);
    }
    assert!(lengths.by_key.len() <= MOST_KEYS);
}

#[test]
fn a_speed_has_its_parts_and_the_load_is_what_is_left() {
    let mut speed = Speed::default();
    for n in 1..30_u64 {
        let (prompt, generated) = (n * 37 % 500, n * 13 % 90);
        let first = 0.05 + 0.002 * float(prompt);
        speed.finished(&Measured {
            first_token_s: Some(first),
            total_s: first + 0.01 * float(generated),
            prompt_tokens: Some(prompt),
            generated: Some(generated),
            loaded: false,
        });
    }
    assert!(near(speed.service_s(100, Some(50.0)), 0.05 + 0.2 + 0.5), "{:?}", speed.service_s(100, Some(50.0)));
    speed.loaded(1.5 + 0.25, 100);
    assert!(near(speed.load_s(), 1.5), "{:?}", speed.load_s());
}

#[test]
fn predictions_are_corrected_by_how_earlier_ones_came_out_within_bounds() {
    let mut calibration = Calibration::default();
    for _ in 0..100 {
        calibration.came_out(1.0, 2.0);
    }
    assert!(near(Some(calibration.factor()), 2.0));
    for _ in 0..100 {
        calibration.came_out(1.0, 1_000.0);
    }
    assert!((calibration.factor() - 4.0).abs() < 1e-9);
    let before = calibration.factor();
    calibration.came_out(0.001, 9.0);
    assert!((calibration.factor() - before).abs() < 1e-9, "a wait of nothing teaches nothing");
}

#[test]
fn waits_are_rounds_of_the_slots_or_what_flows_into_the_free_ones() {
    let wait = |busy: &[f64], ahead, turn| wait_s(&mut busy.to_vec(), ahead, turn);
    assert!(near(Some(wait(&[0.5], 3.0, 1.0)), 3.5));
    assert!(near(Some(wait(&[0.5, 0.7], 0.0, 1.0)), 0.5));
    assert!(near(Some(wait(&[0.7, 0.5], 1.0, 1.0)), 0.7));
    assert!(near(Some(wait(&[0.5, 0.7], 4.0, 1.0)), 2.5));
    assert!(near(Some(wait(&[0.0, 100.0], 5.0, 1.0)), 5.0), "one slot does it all");
    assert!(near(Some(wait(&[0.0, 10.0], 30.0, 1.0)), 20.0));
    assert!(near(Some(wait(&[], 5.0, 1.0)), 5.0));
}
