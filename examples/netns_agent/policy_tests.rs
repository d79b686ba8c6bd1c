//! Tables of policies, good and bad, and of what they match.

use super::*;

const SAMPLE: &str = include_str!("policy.toml");

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

fn names<'a>(wanted: &[&'a Rule]) -> Vec<&'a str> {
    wanted.iter().map(|rule| rule.name.as_str()).collect()
}

#[test]
fn the_sample_is_a_policy() {
    let policy = policy(SAMPLE);
    assert!(!policy.rules.is_empty());
    assert!(policy.rules.iter().all(|rule| !rule.on.is_empty()));
}

#[test]
fn an_empty_file_wants_nothing() {
    assert!(policy("").wanted(&["host".into()], "eth0").unwrap().is_none());
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    const ON: &str = "on = [{ netns = ['*'], interfaces = ['*'] }]\n";
    let rule = |more: &str| format!("[[program]]\nname = 'a'\nobject = 'a.o'\n{more}\n{ON}");
    for (text, words) in [
        ("[[program]]\nname = 'a'\n".to_owned(), "missing field `object`"),
        ("[[program]]\nname = 'a'\nobject = 'a.o'\n".to_owned(), "missing field `on`"),
        (rule("colour = 'red'"), "line 4: unknown field `colour`"),
        (rule("priority = -1"), "line 4: invalid value: integer `-1`"),
        (rule("actions = ['XDP_FOO']"), "line 4: \"XDP_FOO\" is no XDP action"),
        (rule("globals = { port = 1.5 }"), "line 4: a global is an integer"),
        (rule("function = 'f'\nsection = 'xdp'"), "a: function or section, not both"),
        (rule("") + &rule(""), "two programs are called a"),
        (rule("").replace("'a'", "'a.b'"), "line 2: \"a.b\" is no name"),
        (rule("").replace("['*']", "['[']"), "line 5: \"[\": "),
        (rule("").replace("'*'] }", "'*'], mode = 'hw' }"), "unknown variant `hw`"),
        (rule("this is no TOML"), "line 4: "),
    ] {
        let error = Policy::parse(&text).unwrap_err();
        assert!(error.contains(words), "{error:?} has no {words:?} in {text}");
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[test]
fn rules_match_by_names_of_namespaces_and_interfaces() {
    let policy = policy(
        "[[program]]
         name = 'one'
         object = 'one.o'
         on = [
             { netns = ['pod-*', 'host'], interfaces = ['eth?'] },
             { netns = ['/run/docker/*'], interfaces = ['*'] },
         ]
         [[program]]
         name = 'two'
         object = 'two.o'
         on = [{ netns = ['pod-a'], interfaces = ['eth[0-4]', 'net'] }]",
    );
    let table: [(&[&str], &str, &[&str]); 8] = [
        (&["host"], "eth0", &["one"]),
        (&["host"], "eth10", &[]),
        (&["pod-a"], "eth0", &["one", "two"]),
        (&["pod-a"], "eth7", &["one"]),
        (&["pod-a"], "net", &["two"]),
        (&["blue", "pod-b"], "eth0", &["one"]),
        (&["/run/docker/netns/4f"], "lo", &["one"]),
        (&[], "eth0", &[]),
    ];
    for (netns, interface, expected) in table {
        let netns: Vec<String> = netns.iter().map(|name| (*name).to_owned()).collect();
        let wanted = policy.wanted(&netns, interface).unwrap();
        let found = wanted.map(|(rules, _)| names(&rules)).unwrap_or_default();
        assert_eq!(found, expected, "{netns:?} {interface}");
    }
}

#[test]
fn one_interface_has_one_mode() {
    let policy = policy(
        "[[program]]
         name = 'native'
         object = 'a.o'
         on = [{ netns = ['*'], interfaces = ['a', 'b'] }]
         [[program]]
         name = 'skb'
         object = 'a.o'
         on = [{ netns = ['*'], interfaces = ['b', 'c'], mode = 'skb' }]",
    );
    let wanted = |interface| policy.wanted(&["host".into()], interface);
    assert_eq!(wanted("a").unwrap().unwrap().1, Mode::Native);
    assert_eq!(wanted("c").unwrap().unwrap().1, Mode::Skb);
    assert!(wanted("b").unwrap_err().contains("native and skb"));
}

#[test]
fn numbers_have_every_size_that_holds_them() {
    let sizes = |number| {
        let encodings = Value::Number(number).encodings();
        encodings.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(sizes(53), [1, 2, 4, 8]);
    assert_eq!(sizes(255), [1, 2, 4, 8]);
    assert_eq!(sizes(256), [2, 4, 8]);
    assert_eq!(sizes(-1), [1, 2, 4, 8]);
    assert_eq!(sizes(-129), [2, 4, 8]);
    assert_eq!(sizes(i64::from(u32::MAX) + 1), [8]);
    assert_eq!(sizes(i64::MIN), [8]);
    assert_eq!(Value::Number(-2).encodings()[1], (-2_i16).to_ne_bytes());
    assert_eq!(Value::Truth(true).encodings(), [[1]]);
}
