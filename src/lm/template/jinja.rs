//! Templates as model files carry them, in Jinja with what Hugging Face's `apply_chat_template` adds.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error as JinjaError, ErrorKind, UndefinedBehavior, context};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{Error, Message, Names};

/// Bounds work and what it creates: one for an instruction, one for 64 bytes. Long conversations need some 100,000.
const FUEL: u64 = 1_000_000;
const MAX_SOURCE_BYTES: usize = 1 << 20;
const NAME: &str = "chat_template";

#[derive(Debug)]
pub(super) struct Jinja {
    environment: Environment<'static>,
}

impl Jinja {
    pub(super) fn parse(source: &str) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::Syntax { message: format!("it has {} bytes, more than {MAX_SOURCE_BYTES}", source.len()) });
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(100);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        let syntax = |error: &JinjaError| Error::Syntax { message: explain(error) };
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| syntax(&e))?);
        environment.add_template_owned(NAME, known_blocks(source)).map_err(|e| syntax(&e))?;
        Ok(Self { environment })
    }

    pub(super) fn render(&self, messages: &[Message], names: &Names, asks: bool) -> Result<String, Error> {
        let first = self.attempt(messages, names, asks);
        if first.is_err()
            && let Some(merged) = without_system(messages)
        {
            // Some models know no system role and say so by failing: what it says goes before the first question.
            return self.attempt(&merged, names, asks).or(first);
        }
        first
    }

    fn attempt(&self, messages: &[Message], names: &Names, asks: bool) -> Result<String, Error> {
        let failed = |error: JinjaError| Error::Render { message: explain(&error) };
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let values = context! {
            messages => Value::from(Serde(messages)),
            bos_token => names.bos.as_str(),
            eos_token => names.eos.as_str(),
            add_generation_prompt => asks,
            tools => Value::from(()),
            documents => Value::from(()),
        };
        template.render(values).map_err(failed)
    }
}

/// Some templates mark what the assistant says with blocks of Hugging Face's own, which write nothing.
fn known_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (text, tag) = rest.split_at(start);
        out.push_str(text);
        let Some(end) = tag.find("%}").map(|end| end + 2) else {
            rest = tag;
            break;
        };
        let inner = tag[2..end - 2].trim_matches(|c: char| c == '-' || c.is_whitespace());
        match inner {
            "generation" => out.push_str(&tag[..end].replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag[..end].replace("endgeneration", "endif")),
            _ => out.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    out + rest
}

/// The conversation with the system's text before the first user's.
fn without_system(messages: &[Message]) -> Option<Vec<Message>> {
    let (system, rest) = messages.split_first().filter(|(first, _)| first.role == "system")?;
    let mut merged = rest.to_vec();
    let user = merged.iter_mut().find(|message| message.role == "user")?;
    user.content = format!("{}\n\n{}", system.content, user.content);
    Some(merged)
}

fn explain(error: &JinjaError) -> String {
    let place = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {}", detail.chars().take(300).collect::<String>())).unwrap_or_default();
    format!("{}{detail}{place}", error.kind())
}

fn raise_exception(message: String) -> Result<Value, JinjaError> {
    Err(JinjaError::new(ErrorKind::InvalidOperation, message))
}

#[expect(clippy::needless_pass_by_value, reason = "the engine hands arguments over by value")]
fn strftime_now(format: String) -> Result<String, JinjaError> {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::strtime::format(&format, &now).map_err(|error| JinjaError::new(ErrorKind::InvalidOperation, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, Error> {
        Jinja::parse(source)?.render(messages, &Names { bos: "<bos>".into(), eos: "<eos>".into() }, true)
    }

    fn talk() -> Vec<Message> {
        vec![Message::new("system", "Be kind."), Message::new("user", " Hi <b>&\"'")]
    }

    #[test]
    fn a_chatml_template_is_rendered_as_python_would() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n    {% if not tools %}\n{{- '<|im_start|>' + m['role'] + '\\n' + m.content.strip() + '<|im_end|>' + '\\n' }}\n    {% endif %}\n{% endfor %}\n{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
        assert_eq!(
            render(source, &talk()).expect("rendered"),
            "<bos>\n<|im_start|>system\nBe kind.<|im_end|>\n\n<|im_start|>user\nHi <b>&\"'<|im_end|>\n\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn the_functions_of_templates_are_there() {
        assert_eq!(render("{{ strftime_now('%Y') | length }}", &[]).expect("rendered"), "4");
        assert!(render("{{ strftime_now('%') }}", &[]).is_err());
        let error = render("{{ raise_exception('only one') }}", &[]).expect_err("raised").to_string();
        assert!(error.contains("only one"), "{error}");
        assert_eq!(render("{{ {'a': [1, none]} | tojson }}", &[]).expect("rendered"), "{\"a\": [1, null]}");
        assert_eq!(render("{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", &[]).expect("rendered"), "3");
    }

    #[test]
    fn a_conversation_is_rendered_without_asking_and_marks_of_answers_write_nothing() {
        let source = "{% for m in messages %}{%- generation -%} {{ m.content }} {% endgeneration %}{% endfor %}{% if add_generation_prompt %}?{% endif %}";
        let (template, names) = (Jinja::parse(source).expect("known"), Names::default());
        let messages = [Message::new("user", "a"), Message::new("assistant", "b")];
        assert_eq!(template.render(&messages, &names, false).expect("rendered"), "a b ");
        assert_eq!(template.render(&messages, &names, true).expect("rendered"), "a b ?");
        assert_eq!(known_blocks("{% raw %}{{ '{% x' }}{% endraw"), "{% raw %}{{ '{% x' }}{% endraw");
    }

    #[test]
    fn a_system_text_that_is_refused_goes_to_the_first_question() {
        let source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}[{{ m.role }}] {{ m.content }}{% endfor %}";
        assert_eq!(render(source, &talk()).expect("rendered"), "[user] Be kind.\n\n Hi <b>&\"'");
        assert!(render(source, &talk()[..1]).expect_err("nothing to merge into").to_string().contains("not supported"));
    }

    /// What the templates of Qwen 3, Phi 3 and Gemma 2 use beyond the ones above.
    #[test]
    fn the_idioms_of_later_templates_are_understood() {
        let source = "{%- set ns = namespace(last=-1) %}{%- for m in messages[::-1] %}{%- set index = (messages | length - 1) - loop.index0 %}\
            {%- if ns.last < 0 and m.role == 'user' and m.content is string and not (m.content.startswith('<t>') and m.content.endswith('</t>')) %}\
            {%- set ns.last = index %}{%- endif %}{%- endfor %}\
            {%- for m in messages %}{%- set text = m.content.split('</think>')[-1].lstrip('\\n') if '</think>' in m.content else m.content %}\
            {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{%- endif %}\
            {{- '<|' + m['role'] + '|>' + text | trim + ('<|end|>' if not loop.last else '') }}{%- endfor %}\
            {%- if add_generation_prompt and not (enable_thinking is defined and enable_thinking is false) %}{{- '<|assistant|>' ~ ns.last }}{%- endif %}";
        let talk = [
            Message::new("user", "Hi"),
            Message::new("assistant", "<think>\nwell\n</think>\n\nHello "),
            Message::new("user", "More"),
            Message::new("assistant", "Yes"),
        ];
        assert_eq!(
            render(source, &talk).expect("rendered"),
            "<|user|>Hi<|end|><|assistant|>Hello<|end|><|user|>More<|end|><|assistant|>Yes<|assistant|>2"
        );
    }

    #[test]
    fn work_and_output_are_bounded() {
        for endless in [
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            "{% set x = 'y' * 100000000 %}{{ x }}{{ x }}{{ x }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        ] {
            assert!(matches!(render(endless, &talk()), Err(Error::Render { .. })), "{endless}");
        }
        assert!(matches!(Jinja::parse(&"{{".repeat(400)), Err(Error::Syntax { .. })));
        assert!(matches!(Jinja::parse(&"a".repeat(MAX_SOURCE_BYTES + 1)), Err(Error::Syntax { .. })));
        assert!(matches!(Jinja::parse(&format!("{{{{ {}1 }}}}", "(".repeat(10_000))), Err(Error::Syntax { .. })));
    }

    #[test]
    fn long_conversations_fit_the_bound() {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}";
        let messages: Vec<Message> = (0..500).map(|_| Message::new("user", "word ".repeat(2_000))).collect();
        assert!(render(source, &messages).expect("rendered").len() > 4_900_000);
    }
}
