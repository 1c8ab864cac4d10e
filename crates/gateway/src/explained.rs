//! What the library refuses by itself, told as everything else: with a problem that has code, subject, sentence and hint, in the
//! protocol of the caller; and what it takes without a word although it cannot be meant.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use connectrpc::{ConnectError, ErrorCode, Protocol};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use pve_public_ip_core::code;
use pve_public_ip_core::model::{Problem, Subject};
use serde::Deserialize;

use crate::contract::Call;
use crate::status;

/// An answer's body.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// No error of the library is larger, in bytes.
const ERROR_LIMIT: usize = 64 * 1024;

/// Bits of the first byte of a frame: of Connect's last one, of gRPC-Web's trailers.
const END_OF_STREAM: u8 = 0x02;
const TRAILERS: u8 = 0x80;

/// The time that a caller gives a call, if it can be read: without it he would wait for longer than he means to.
pub fn check_time(headers: &HeaderMap) -> Result<(), ConnectError> {
    let digits =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let milliseconds = |text: &str| digits(text, 10) && text.bytes().any(|digit| digit != b'0');
    let with_unit = |text: &str| text.strip_suffix(['H', 'M', 'S', 'm', 'u', 'n']).is_some_and(|rest| digits(rest, 8));
    let is_grpc = Protocol::detect(headers).is_some_and(|found| found.protocol != Protocol::Connect);
    let (name, example) = if is_grpc {
        ("grpc-timeout", "`grpc-timeout: 5000m`")
    } else {
        ("connect-timeout-ms", "`connect-timeout-ms: 5000`")
    };
    let mut given = headers.get_all(name).iter();
    let Some(first) = given.next() else { return Ok(()) };
    let is_good = |text: &str| if is_grpc { with_unit(text) } else { milliseconds(text) };
    if given.next().is_none() && first.to_str().is_ok_and(is_good) {
        return Ok(());
    }
    let sentence = format!("{name}: it is no time that a call can take");
    Err(status::error(invalid(sentence, format!("{example} gives it five seconds"))))
}

fn invalid(sentence: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem::new(code!("request-invalid"), Subject::Command, sentence, hint)
}

/// The answer, with a problem if it is an error that has none.
pub async fn explained(asked: &HeaderMap, call: Option<&Call>, response: Response<Body>) -> Response<Body> {
    let (parts, mut body) = response.into_parts();
    if parts.status != StatusCode::OK {
        let whole = http_body_util::Limited::new(body, ERROR_LIMIT).collect().await;
        let bytes = whole.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let error = match serde_json::from_slice::<ConnectError>(&bytes) {
            Ok(error) if !error.details.is_empty() => None,
            Ok(error) => Some(error),
            Err(_) => Some(of_status(parts.status)),
        };
        let Some(error) = error else {
            return Response::from_parts(parts, http_body_util::Full::new(bytes).boxed_unsync());
        };
        let mut told = with_problem(&error, call).into_http_response(asked).map(BodyExt::boxed_unsync);
        *told.status_mut() = parts.status;
        for (name, value) in &parts.headers {
            if ![header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING].contains(name) {
                told.headers_mut().insert(name.clone(), value.clone());
            }
        }
        return told;
    }
    let first = body.frame().await;
    let error = first.as_ref().and_then(|frame| failure(frame.as_ref().ok()?));
    match error.filter(|error| error.details.is_empty()) {
        Some(error) => with_problem(&error, call).into_http_response(asked).map(BodyExt::boxed_unsync),
        None => Response::from_parts(parts, Peeked { first: first.and_then(Result::ok), rest: body }.boxed_unsync()),
    }
}

/// The error that an answer begins with; nothing else follows it.
fn failure(frame: &Frame<Bytes>) -> Option<ConnectError> {
    if let Some(trailers) = frame.trailers_ref() {
        let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
        return of_trailers(text("grpc-status")?, text("grpc-message"), text("grpc-status-details-bin"));
    }
    let data = frame.data_ref()?;
    let (head, rest) = data.split_at_checked(5)?;
    let length = usize::try_from(u32::from_be_bytes(head[1..].try_into().ok()?)).ok()?;
    let message = rest.get(..length)?;
    match head[0] {
        END_OF_STREAM => {
            #[derive(Deserialize)]
            struct End {
                error: Option<ConnectError>,
            }
            serde_json::from_slice::<End>(message).ok()?.error
        }
        TRAILERS => {
            let lines = std::str::from_utf8(message).ok()?.lines().filter_map(|line| line.split_once(':'));
            let fields: Vec<(&str, &str)> = lines.map(|(name, value)| (name.trim(), value.trim())).collect();
            let text = |wanted: &str| {
                fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
            };
            of_trailers(text("grpc-status")?, text("grpc-message"), text("grpc-status-details-bin"))
        }
        _ => None,
    }
}

/// The error of trailers; one that has a problem is told already. The library puts code and message among the details, too.
fn of_trailers(number: &str, message: Option<&str>, details: Option<&str>) -> Option<ConnectError> {
    let code = ErrorCode::from_grpc_code(number.parse().ok().filter(|number| *number != 0)?)?;
    let details = details.map(decoded).unwrap_or_default();
    let is_told = details.windows(status::DETAIL.len()).any(|window| window == status::DETAIL.as_bytes());
    (!is_told).then(|| ConnectError::new(code, message.map(unescaped).unwrap_or_default()))
}

/// The bytes of base64, up to what is none.
fn decoded(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |letter: u8| LETTERS.iter().position(|known| *known == letter);
    let (mut bits, mut count, mut bytes) = (0_usize, 0_u32, Vec::new());
    for value in text.bytes().map_while(value) {
        bits = bits << 6 & 0xffff | value;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.extend(u8::try_from(bits >> count & 0xff));
        }
    }
    bytes
}

/// The text of `grpc-message`, in which a percent sign stands before two digits of each byte that is no plain letter.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error that has a status and nothing else.
fn of_status(status: StatusCode) -> ConnectError {
    let (code, sentence) = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (ErrorCode::InvalidArgument, "the content-type is none that the gateway reads")
        }
        StatusCode::METHOD_NOT_ALLOWED => (ErrorCode::Unimplemented, "the call is not made by this method of HTTP"),
        StatusCode::NOT_FOUND => (ErrorCode::Unimplemented, "there is no such call"),
        _ if status.is_client_error() => (ErrorCode::InvalidArgument, "the request is refused"),
        _ => (ErrorCode::Internal, "the gateway failed"),
    };
    ConnectError::new(code, sentence)
}

/// The same error, with what is to be done about it.
fn with_problem(error: &ConnectError, call: Option<&Call>) -> ConnectError {
    let sentence = match error.message.as_deref() {
        None | Some("") => format!("the call failed: {}", error.code.as_str()),
        Some(message) => message.to_owned(),
    };
    let example = "`curl -H 'content-type: application/json' -d '{}'`, or a client made from the .proto file";
    let problem = match (error.code, call) {
        // What was begun goes on without the caller.
        (ErrorCode::DeadlineExceeded | ErrorCode::Canceled, _) => Problem::new(
            code!("api-answer-lost"),
            Subject::Command,
            sentence,
            "make the same call again, and give it more time: what was done is answered with `changed` false",
        ),
        (ErrorCode::Internal | ErrorCode::Unknown | ErrorCode::DataLoss, _) if !sentence.contains("GET") => {
            Problem::new(code!("internal-error"), Subject::Command, sentence, "please report this")
        }
        (_, None) => Problem::new(
            code!("not-in-api"),
            Subject::Command,
            sentence,
            "the calls are POST /pve_public_ip.v1.VPSGatewayService/METHOD and /pve_public_ip.v1.SuperadminService/METHOD: docs/api.md",
        ),
        (ErrorCode::InvalidArgument, Some(call)) => {
            let fields: Vec<&str> = call.fields.iter().map(|(name, _)| *name).collect();
            let fields = if fields.is_empty() { "none".to_owned() } else { fields.join(", ") };
            let hint = format!(
                "the fields of {} are: {fields}; in JSON texts stand in quotes (\"101\"), and no fields are `{{}}`: {example}",
                call.method
            );
            invalid(sentence, hint)
        }
        (ErrorCode::ResourceExhausted, Some(_)) => invalid(sentence, "send less at once: no call needs that much"),
        (_, Some(call)) => invalid(sentence, format!("POST a request to /{}/{}: {example}", call.service, call.method)),
    };
    let (code, headers) = (error.code, error.response_headers().clone());
    let mut told = status::error_as(code, problem);
    for (name, value) in &headers {
        told.response_headers_mut().insert(name.clone(), value.clone());
    }
    told
}

/// A body whose first frame was looked at.
struct Peeked {
    first: Option<Frame<Bytes>>,
    rest: Body,
}

impl http_body::Body for Peeked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        http_body::Body::poll_frame(Pin::new(&mut self.rest), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && http_body::Body::is_end_stream(&self.rest)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = http_body::Body::size_hint(&self.rest);
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(hint.lower() + first);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn times_that_can_be_meant() {
        let connect = ("content-type", "application/json");
        let grpc = ("content-type", "application/grpc+proto");
        for good in ["1", "5000", "9999999999", "0005"] {
            check_time(&headers(&[connect, ("connect-timeout-ms", good)])).unwrap();
        }
        for bad in ["", "0", "000", "x", "-1", "+1", "1.5", "5s", "99999999999", "1e3", " 5 0"] {
            let error = check_time(&headers(&[connect, ("connect-timeout-ms", bad)])).unwrap_err();
            let message = error.message.as_deref();
            assert_eq!(message, Some("connect-timeout-ms: it is no time that a call can take"), "{bad}");
            assert_eq!((error.code, error.details.len()), (ErrorCode::InvalidArgument, 1));
        }
        for good in ["1S", "5000m", "99999999u", "0n", "1H", "2M"] {
            check_time(&headers(&[grpc, ("grpc-timeout", good)])).unwrap();
        }
        for bad in ["", "5", "m", "5s", "999999999m", "-1S", "1.5S", "x"] {
            assert!(check_time(&headers(&[grpc, ("grpc-timeout", bad)])).is_err(), "{bad}");
        }
        check_time(&headers(&[connect, ("grpc-timeout", "x")])).unwrap();
        let mut twice = headers(&[connect, ("connect-timeout-ms", "5")]);
        twice.append("connect-timeout-ms", "6".parse().unwrap());
        assert!(check_time(&twice).is_err());
    }

    #[test]
    fn base64_is_read() {
        for (text, expected) in
            [("", ""), ("YQ", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("YWJjZGVm", "abcdef"), ("YW!J", "a")]
        {
            assert_eq!(decoded(text), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_meant() {
        for (text, expected) in [("plain", "plain"), ("a%20b%25", "a b%"), ("%", "%"), ("%zz", "%zz"), ("%C3%A4", "ä")]
        {
            assert_eq!(unescaped(text), expected);
        }
    }
}
