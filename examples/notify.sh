#!/bin/sh
# Reports a deployment to the sidecar from any shell script: POSIX sh, curl, awk, od, tee; nothing else.
# It never fails the deploy it reports on: what can't be delivered is a warning, unless SIDECAR_STRICT=1.
#
# Names of our own start with an underscore, so that assigning them never changes a variable that the
# caller exported for the command of a step.

{ set +x; } 2>/dev/null # a trace would print the token
set -u

usage() {
    cat <<'USAGE'
usage: notify.sh start                               a deployment begins; prints its id
       notify.sh finish STATUS                       it ends: success, failed, cancelled, ...
       notify.sh step NAME -- COMMAND [ARG...]       run a command as a step, with its output as live log
       notify.sh step-started NAME                   report a step that runs elsewhere
       notify.sh step-completed NAME STATUS [DURATION_SECONDS]
       notify.sh log [LEVEL] MESSAGE...              one log line (debug info warn warning error fatal)
       notify.sh log                                 log lines from standard input
       notify.sh job-log                             the log of a job that ended, as GitHub's API gives it:
                                                     each line with its own time and level
       notify.sh metrics KEY=VALUE...                figures; numbers, true and false keep their type
       notify.sh send                                messages of your own from standard input, JSON, one a line
       notify.sh test                                try address, token and project; fails if they don't work
       notify.sh help

environment:
  SIDECAR_PROJECT         name of the project (needed)
  SIDECAR_TOKEN           API token with the scope webhooks:write, if the sidecar asks for one
  SIDECAR_WEBHOOK_SECRET  instead of a token: signs each message (X-Hub-Signature-256)
  SIDECAR_URL             default http://127.0.0.1:8091/project-dashboard
  SIDECAR_DEPLOYMENT_ID   default: GITHUB_RUN_ID, else CI_PIPELINE_ID, else made by start:
                              SIDECAR_DEPLOYMENT_ID=$(notify.sh start); export SIDECAR_DEPLOYMENT_ID
  SIDECAR_ATTEMPT         number of the attempt, default: GITHUB_RUN_ATTEMPT for GITHUB_RUN_ID
  SIDECAR_STEP            the step that the lines of log and job-log belong to
  SIDECAR_STRICT          1: fail when a notification can't be delivered
  SIDECAR_RETRY_SECONDS   first pause between tries, doubled each time, default 1 (fractions allowed)
  SIDECAR_GIVE_UP_SECONDS longest time for one message with all its tries, default 30

A step ends with its command's exit code. The command's output reaches the terminal at once and unchanged;
a line that ends without newline is logged when it ends. A step that leaves a daemon behind should
redirect the daemon's output, as for any CI job.
What send and job-log send has a key made from its content: sent again, it is stored once.
exit code: 0; that of the command of a step; 1 undelivered (test, SIDECAR_STRICT=1); 2 wrong usage.
USAGE
}

# On one line whatever it is: a CI system obeys lines of its log that begin in a certain way.
warn() { printf 'notify.sh: %s\n' "$(printf '%s' "$*" | LC_ALL=C tr '\000-\037\177' ' ')" >&2; }

misused() {
    warn "$*; see notify.sh help"
    exit 2
}

# ---- JSON ------------------------------------------------------------------------------------------

# Standard input as JSON strings in plain ASCII, so that no locale and no awk's idea of a character
# matters. Bytes come in as numbers from od, NUL and invalid UTF-8 included; an invalid sequence becomes
# U+FFFD by the Unicode standard's rule of maximal subparts, as in browsers and Python.
#   encode string                     all of it as one string
#   encode lines LEVEL TIME COUNT_FILE END
#                                     one object a line; how many bytes they used and the time of the last
#                                     go to COUNT_FILE; END=1 takes a last line without newline too
#   encode job LEVEL TIME COUNT_FILE END
#                                     the same; a time and a level that GitHub wrote before a line's text
#                                     are the line's own, and a line without time has that of the one before
# A batch ends after 200 lines or 64 KiB and a line is cut after 32 KiB: even if every byte must be
# escaped, the body stays below the 1 MiB that sidecar and nginx accept.
encode() {
    od -An -v -tu1 2>/dev/null | LC_ALL=C awk -v mode="$1" -v default_level="${2-}" -v time="${3-}" \
        -v count_file="${4-}" -v end="${5-}" '
        BEGIN {
            levels["error"] = "error"; levels["warning"] = "warn"; levels["debug"] = "debug"; levels["notice"] = "info"
            split("31 28 31 30 31 30 31 31 30 31 30 31", days, " ")
            for (i = 0; i < 32; i++) text[i] = sprintf("\\u%04x", i)
            for (i = 32; i < 127; i++) text[i] = sprintf("%c", i)
            text[34] = "\\\""; text[92] = "\\\\"; text[127] = "\\u007f"
            ORS = "" # print, because printf is limited to 8 KiB in some awks
        }
        function put(code) {
            if (code < 128) row = row text[code]
            else if (code < 65536) row = row sprintf("\\u%04x", code)
            else row = row sprintf("\\u%04x\\u%04x", 55296 + int((code - 65536) / 1024), 56320 + code % 1024)
        }
        # The sidecar refuses a whole batch with a time that there is not, and anybody can print one.
        function is_time(text) {
            if (text !~ /^20[0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?Z$/) return 0
            year = substr(text, 1, 4) + 0; month = substr(text, 6, 2) + 0; day = substr(text, 9, 2) + 0
            return length(text) <= 30 && day >= 1 && substr(text, 12, 2) + 0 <= 23 &&
                (day <= days[month] || (month == 2 && day == 29 && year % 4 == 0))
        }
        function read_head() {
            level = default_level
            if (substr(line, 1, 6) == "\\ufeff") line = substr(line, 7)
            space = index(line, " ")
            if (space && is_time(substr(line, 1, space - 1))) {
                time = substr(line, 1, space - 1); line = substr(line, space + 1)
            }
            if (match(line, /^##\[[a-z]+\]/)) {
                word = substr(line, 4, RLENGTH - 4)
                if (word in levels) level = levels[word]
                if (word in levels || word ~ /^(group|command|section)$/) line = substr(line, RLENGTH + 1)
            }
        }
        function finish_line() {
            line = line row; row = ""
            if (carriage_return) line = substr(line, 1, length(line) - 6)
            level = default_level
            if (mode == "job") read_head()
            print (lines ? "," : "") "{\"level\":\"" level "\",\"timestamp\":\"" time "\",\"message\":\"" line "\"}"
            line = ""; line_bytes = 0; carriage_return = 0; lines++; used = taken
            return lines >= 200 || used >= 65536
        }
        # lowest and highest are what the next byte of a sequence may be: they rule out overlong
        # forms, surrogates and code points past U+10FFFF
        function decode(byte) {
            if (needed) {
                if (byte >= lowest && byte <= highest) {
                    code = code * 64 + byte - 128; needed--
                    lowest = 128; highest = 191
                    if (!needed) put(code)
                    return
                }
                needed = 0; put(65533)
            }
            if (byte < 128) { put(byte); return }
            lowest = 128; highest = 191
            if (byte >= 194 && byte <= 223) { needed = 1; code = byte - 192 }
            else if (byte >= 224 && byte <= 239) {
                needed = 2; code = byte - 224
                if (byte == 224) lowest = 160
                if (byte == 237) highest = 159
            }
            else if (byte >= 240 && byte <= 244) {
                needed = 3; code = byte - 240
                if (byte == 240) lowest = 144
                if (byte == 244) highest = 143
            }
            else put(65533)
        }
        {
            for (i = 1; i <= NF; i++) {
                byte = $i + 0; taken++
                if (byte == 10 && mode != "string") {
                    if (needed) { needed = 0; put(65533) }
                    if (finish_line()) exit
                    continue
                }
                decode(byte)
                line_bytes++; carriage_return = (byte == 13)
                if (mode != "string" && line_bytes >= 32768 && !needed) {
                    carriage_return = 0
                    if (finish_line()) exit
                }
            }
            line = line row; row = ""
        }
        END {
            if (needed) put(65533)
            if (mode == "string") print "\"" line row "\""
            else {
                if (end == 1 && line_bytes) finish_line()
                print used + 0 " " time "\n" > count_file
            }
        }'
}

string() { printf '%s' "$1" | encode string; }

is_number() {
    case $1 in '' | *[!0-9.eE+-]*) return 1 ;; esac
    printf '%s\n' "$1" | grep -Eqx -e '-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?'
}

# Milliseconds where date knows them: two messages of one second keep their order.
now() {
    _now=$(date -u '+%Y-%m-%dT%H:%M:%S.%3NZ')
    case $_now in *N*) _now=$(date -u '+%Y-%m-%dT%H:%M:%SZ') ;; esac
    printf '%s' "$_now"
}

# opening TYPE [TIME]
opening() {
    printf '{"type":"%s","project":%s,"deployment_id":%s,"timestamp":"%s"' \
        "$1" "$_project_json" "$_deployment_json" "${2:-$(now)}"
    [ -z "$_attempt_number" ] || printf ',"attempt":%s' "$_attempt_number"
}

field() { printf ',"%s":%s' "$1" "$(string "$2")"; }

# What the CI system says of the run that is this deployment.
origin() {
    case $_deployment_id in
        "${GITHUB_RUN_ID-}")
            field workflow_name "${GITHUB_WORKFLOW-}"
            field ref "${GITHUB_REF_NAME-}"
            field sha "${GITHUB_SHA-}"
            field actor "${GITHUB_TRIGGERING_ACTOR:-${GITHUB_ACTOR-}}"
            [ -z "${GITHUB_REPOSITORY-}" ] ||
                field url "${GITHUB_SERVER_URL-}/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"
            ;;
        "${CI_PIPELINE_ID-}")
            field workflow_name "${CI_PIPELINE_NAME-}"
            field ref "${CI_COMMIT_REF_NAME-}"
            field sha "${CI_COMMIT_SHA-}"
            field actor "${GITLAB_USER_LOGIN-}"
            field url "${CI_PIPELINE_URL-}"
            ;;
    esac
}

# ---- signature -------------------------------------------------------------------------------------

# HMAC-SHA256 from a plain SHA-256: openssl would take the secret as an argument, for all to see in ps.

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum; else openssl dgst -sha256 -r; fi | cut -c 1-64
}

# 64 hexadecimal digits as the bytes that they mean, written for printf %b.
bytes_of_hex() {
    awk '{
        for (i = 1; i < length($0); i += 2)
            printf "\\0%03o", 16 * (index("0123456789abcdef", substr($0, i, 1)) - 1) \
                + index("0123456789abcdef", substr($0, i + 1, 1)) - 1
    }'
}

# pad BYTE: the key on standard input, filled up to SHA-256's block with zeros, each byte xor BYTE.
pad() {
    od -An -v -tu1 | awk -v with="$1" '
        function exclusive_or(a, b, bit, result) {
            for (bit = 1; bit < 256; bit *= 2) {
                if (a % 2 != b % 2) result += bit
                a = int(a / 2); b = int(b / 2)
            }
            return result
        }
        { for (i = 1; i <= NF; i++) key[count++] = $i }
        END { for (i = 0; i < 64; i++) printf "\\0%03o", exclusive_or(key[i] + 0, with) }'
}

key_bytes() {
    if [ "$(printf '%s' "$SIDECAR_WEBHOOK_SECRET" | wc -c)" -gt 64 ]; then
        printf '%b' "$(printf '%s' "$SIDECAR_WEBHOOK_SECRET" | sha256 | bytes_of_hex)"
    else
        printf '%s' "$SIDECAR_WEBHOOK_SECRET"
    fi
}

prepare_signing() {
    _inner_pad=$(key_bytes | pad 54)
    _outer_pad=$(key_bytes | pad 92)
}

signature() {
    {
        printf '%b' "$_outer_pad"
        printf '%b' "$({
            printf '%b' "$_inner_pad"
            cat "$1"
        } | sha256 | bytes_of_hex)"
    } | sha256
}

# ---- delivery --------------------------------------------------------------------------------------

random_hex() { od -An -v -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# content_key FILE [PLACE]: the same for the same content at the same place.
content_key() {
    {
        printf '%s\n' "${2-}"
        cat "$1"
    } | sha256
}

nap() { sleep "$1" 2>/dev/null || sleep 1; }

# Everything that may be secret goes to curl on its standard input: arguments are for all to see in ps.
# -q: a .curlrc of this machine must not add redirects or headers.
curl_options() {
    printf 'url = "%s/api/webhooks/deployment"\n' "$_url"
    printf 'header = "Content-Type: application/json"\n'
    printf 'header = "Expect:"\n'
    printf 'header = "Idempotency-Key: %s"\n' "$2"
    if [ -n "${SIDECAR_TOKEN-}" ]; then
        printf 'header = "Authorization: Bearer %s"\n' "$SIDECAR_TOKEN"
    elif [ -n "${SIDECAR_WEBHOOK_SECRET-}" ]; then
        printf 'header = "X-Hub-Signature-256: sha256=%s"\n' "$(signature "$1")"
    fi
}

# send_once BODY_FILE KEY SECONDS: prints the HTTP status, 000 without an answer.
send_once() {
    curl_options "$1" "$2" | curl -q --config - --silent --show-error --proto '=http,https' \
        --connect-timeout 5 --max-time "$3" --user-agent 'sidecar-notify/1.0' \
        --data-binary "@$1" --dump-header "$_work/headers" --output "$_work/answer" \
        --write-out '%{http_code}' 2>"$_work/curl_error"
}

# pause_seconds ATTEMPT SECONDS_LEFT: exponential, half of it random, so that the senders of a site
# don't come back in step; never sooner than Retry-After asks. Prints nothing if that would be too late.
pause_seconds() {
    LC_ALL=C awk -v base="${SIDECAR_RETRY_SECONDS:-1}" -v attempt="$1" -v left="$2" \
        -v random="$(od -An -N2 -tu2 /dev/urandom)" '
        tolower($1) == "retry-after:" && $2 ~ /^[0-9]/ { asked = $2 + 0 }
        END {
            pause = base
            while (--attempt > 0) pause *= 2 # busybox may lack ^
            if (pause > 30) pause = 30
            pause = pause * (0.5 + random / 131072)
            if (asked) pause = asked + base * random / 131072
            if (pause <= left) printf "%.3f", pause
        }' "$_work/headers"
}

# How long a server that didn't take a message wants to be left alone: 5 s if it doesn't say.
asked_seconds() {
    awk 'tolower($1) == "retry-after:" && $2 ~ /^[0-9]/ { asked = int($2) }
        END { print asked ? asked : 5 }' "$_work/headers"
}

# What the server or curl says about a failure, printable and short.
reason() {
    if [ "$_status" = 000 ]; then _reason=$(cat "$_work/curl_error"); else
        _reason="HTTP $_status $(cat "$_work/answer" 2>/dev/null)"
    fi
    printf '%s' "$_reason" | LC_ALL=C tr -c '\040-\176' ' ' | cut -c 1-300
}

# deliver BODY_FILE KEY TRIES: 0 delivered, 1 given up for now, 2 refused for good. The key is the same
# over all tries, so a message whose answer got lost is not stored twice.
deliver() {
    _left=${SIDECAR_GIVE_UP_SECONDS:-30}
    _give_up_at=$(($(date +%s) + _left))
    _attempt=1
    while :; do
        : >"$_work/headers"
        : >"$_work/answer"
        _status=$(send_once "$1" "$2" "$((_left > 10 ? 10 : _left < 1 ? 1 : _left))")
        : "${_status:=000}"
        case $_status in
            2??) return 0 ;;
            000 | 429 | 5??) ;;
            *) return 2 ;;
        esac
        [ "$_attempt" -lt "$3" ] || return 1
        _pause=$(pause_seconds "$_attempt" "$((_give_up_at - $(date +%s)))")
        [ -n "$_pause" ] || return 1
        nap "$_pause"
        _left=$((_give_up_at - $(date +%s)))
        _attempt=$((_attempt + 1))
    done
}

undelivered() {
    : >"$_work/undelivered"
    warn "$*"
}

# post WHAT: delivers the message in $_work/message.
post() {
    [ -z "$_disabled" ] || return 1
    deliver "$_work/message" "$(random_hex 16)" 5 && return
    undelivered "$1 was not delivered: $(reason)"
    return 1
}

# ---- live log --------------------------------------------------------------------------------------

# encode_batch LEVEL END: the lines of $_work/output that were not sent yet become $_work/batch.
encode_batch() {
    [ "$_lines" = job ] || _line_time=$(now)
    tail -c "+$((_sent_bytes + 1))" "$_work/output" 2>/dev/null |
        encode "$_lines" "$1" "$_line_time" "$_work/count" "$2" >"$_work/entries"
    read -r _batch_bytes _line_time <"$_work/count"
    [ "$_batch_bytes" -gt 0 ] || return 1
    {
        opening log_batch "$_line_time"
        [ -z "$_lines_step" ] || field step_name "$_lines_step"
        printf ',"logs":['
        cat "$_work/entries"
        printf ']}'
    } >"$_work/batch"
    case $_lines in
        job) _batch_key=$(content_key "$_work/batch" "$_sent_bytes") ;;
        *) _batch_key=$(random_hex 16) ;;
    esac
}

# send_lines LEVEL END: sends all lines there are. A batch that can't be delivered now is kept and tried
# again with its key, so a sidecar that restarts during the deploy misses nothing.
send_lines() {
    while :; do
        if [ "$_batch_bytes" -eq 0 ]; then encode_batch "$1" "$2" || return 0; fi
        deliver "$_work/batch" "$_batch_key" "$_tries"
        case $? in
            0) _tries=5 ;;
            1)
                # once is enough from now on, until it answers again: a dead sidecar must not hold up a deploy
                _tries=1
                _resume_second=$(($(date +%s) + $(asked_seconds)))
                return 1
                ;;
            *) return 2 ;;
        esac
        _sent_bytes=$((_sent_bytes + _batch_bytes))
        _batch_bytes=0
    done
}

# Runs beside the command, so that the command never waits for the sidecar. Everything goes through a
# file: that keeps the newest lines if this process is slow, and no byte passes through a shell variable.
ship() {
    trap '' HUP INT TERM # a cancelled step is still reported
    _sent_bytes=0
    _batch_bytes=0
    _tries=5
    _resume_second=0
    _last_second=''
    [ -z "$_step" ] || post "start of step $_step"
    while :; do
        if [ -e "$_work/ended" ]; then
            send_lines "$1" 1 && return
            undelivered "log lines were not delivered: $(reason)"
            return
        fi
        _second=$(date +%s)
        if [ "$_second" != "$_last_second" ] && [ "$_second" -ge "$_resume_second" ]; then
            _last_second=$_second
            send_lines "$1" 0
            if [ $? -eq 2 ]; then
                undelivered "no log lines are delivered any more: $(reason)"
                return
            fi
        fi
        if ! kill -0 $$ 2>/dev/null; then # our parent was killed outright
            rm -rf "$_work"
            return
        fi
        nap 0.2
    done
}

start_shipping() {
    : >"$_work/output"
    [ -z "$_disabled" ] || return
    ship "$1" >/dev/null &
    _shipper=$!
}

finish_shipping() {
    : >"$_work/ended"
    [ -z "$_shipper" ] || wait "$_shipper"
    _shipper=''
}

# ---- step ------------------------------------------------------------------------------------------

# shellcheck disable=SC2317 # a trap calls it
forward() {
    _signal=$1
    _signals=$((_signals + 1))
    _forwarded=$1
    [ "$1" != INT ] || _forwarded=$_interrupt
    [ -z "$_command" ] || kill -"$_forwarded" "$_command" 2>/dev/null
}

# dash and busybox start every background command with INT ignored and can't undo that: there the
# command is told to end by TERM. Prints the signal that works.
interrupting_signal() {
    (
        trap - INT
        exec sh -c 'kill -INT $$'
    ) &
    if wait $!; then echo TERM; else echo INT; fi
}

# Standard output and error stay two streams if they are two outside; as one stream they keep their order.
# In the log they are one in any case, mixed as a terminal would show them.
one_output() {
    if [ -t 1 ] && [ -t 2 ]; then return 0; fi
    _one=$(readlink "/proc/$$/fd/1" 2>/dev/null) && [ "$_one" = "$(readlink "/proc/$$/fd/2")" ]
}

# copy STREAM: what comes through the fifo goes out and into the log.
copy() {
    trap '' HUP INT TERM # ends when the command's output ends
    tee -a "$_work/output" <"$_work/$1"
    : >"$_work/$1.copied"
}

copied() {
    [ -e "$_work/stdout.copied" ] && { [ -n "$_one_output" ] || [ -e "$_work/stderr.copied" ]; }
}

# The last output may still be on its way when the command has ended. But if a daemon that the command
# left behind holds the output open it never ends: a second of silence is enough then.
wait_for_copies() {
    _silent=0
    _size=
    until copied || [ "$_silent" -ge 20 ]; do
        nap 0.05
        _new_size=$(wc -c <"$_work/output")
        if [ "$_new_size" = "$_size" ]; then _silent=$((_silent + 1)); else _silent=0; fi
        _size=$_new_size
    done
}

# start_command COMMAND [ARG...]: sets _runner and _command. The command's input comes by 9, because a
# shell gives /dev/null to what it starts with &.
start_command() {
    if (: <&0) 2>/dev/null; then exec 9<&0; else exec 9</dev/null; fi
    run "$@" 2>/dev/null &
    _runner=$!
    exec 9<&-
    until [ -s "$_work/pid" ] || ! kill -0 "$_runner" 2>/dev/null; do nap 0.01; done
    read -r _command <"$_work/pid"
}

# Runs the command and puts its exit code on file. No signal is trapped here: bash forgets the status of a
# child that ends in the very moment of a trapped signal, and a second wait for it never returns.
run() {
    trap '' HUP INT TERM
    if [ -n "$_one_output" ]; then
        become "$@" <&9 9<&- >"$_work/stdout" 2>&1 &
    else
        become "$@" <&9 9<&- >"$_work/stdout" 2>"$_work/stderr" &
    fi
    echo $! >"$_work/pid"
    exec 9<&-
    wait $!
    echo $? >"$_work/code"
}

become() {
    trap - HUP INT QUIT TERM
    exec "$@"
}

start_copies() {
    _one_output=
    one_output && _one_output=yes
    mkfifo "$_work/stdout"
    copy stdout &
    [ -z "$_one_output" ] || return 0
    mkfifo "$_work/stderr"
    copy stderr >&2 &
}

# Sets _code. A signal cuts the wait short; what it left is watched instead (see run).
wait_for_command() {
    _seen=$_signals
    wait "$_runner"
    if [ "$_seen" != "$_signals" ]; then
        until [ -s "$_work/code" ] || ! kill -0 "$_runner" 2>/dev/null; do nap 0.05; done
    fi
    _code=137 # if the runner itself was killed
    [ ! -s "$_work/code" ] || read -r _code <"$_work/code"
}

step() {
    [ $# -ge 1 ] || misused 'step needs a name'
    _step=$1
    _lines_step=$1
    shift
    [ "${1-}" != -- ] || shift
    [ $# -ge 1 ] || misused 'step needs a command: step NAME -- COMMAND'

    _signal=''
    _signals=0
    _command=''
    _interrupt=$(interrupting_signal 2>/dev/null)
    trap 'forward INT' INT
    trap 'forward TERM' TERM
    trap 'forward HUP' HUP
    _started_at=$(now)
    _started_second=$(date +%s)
    {
        opening step_started
        field step_name "$_step"
        field step_status started
        printf '}'
    } >"$_work/message"

    start_shipping info
    start_copies
    start_command "$@"
    [ -z "$_signal" ] || kill -TERM "$_command" # it came before there was a command
    wait_for_command
    _duration=$(($(date +%s) - _started_second))
    wait_for_copies
    end_on_signals # a second signal doesn't wait for the report
    finish_shipping

    _outcome=completed
    [ "$_code" -eq 0 ] || _outcome=failed
    [ "$_code" -eq 0 ] || [ -z "$_signal" ] || _outcome=cancelled
    {
        opening step_completed
        field step_name "$_step"
        field step_status "$_outcome"
        printf ',"duration":%d,"started_at":"%s","completed_at":"%s"' "$_duration" "$_started_at" "$(now)"
        [ "$_code" -eq 0 ] || field logs "exit code $_code${_signal:+ after SIG$_signal}"
        printf '}'
    } >"$_work/message"
    post "end of step $_step"
    [ "$_code" -eq 0 ] || exit "$_code"
}

# ---- the other subcommands -------------------------------------------------------------------------

start() {
    {
        opening deployment_started
        origin
        printf ',"status":"running","started_at":"%s"}' "$(now)"
    } >"$_work/message"
    post 'start of the deployment'
    printf '%s\n' "$_deployment_id"
}

finish() {
    [ $# -eq 1 ] || misused 'finish needs a status'
    {
        opening deployment_completed
        origin
        field status "$1"
        printf ',"completed_at":"%s"}' "$(now)"
    } >"$_work/message"
    post 'end of the deployment'
}

step_started() {
    [ $# -eq 1 ] || misused 'step-started needs a name'
    {
        opening step_started
        field step_name "$1"
        field step_status started
        printf '}'
    } >"$_work/message"
    post "start of step $1"
}

step_completed() {
    if [ $# -lt 2 ] || [ $# -gt 3 ]; then misused 'step-completed needs a name and a status'; fi
    [ $# -eq 2 ] || is_number "$3" || misused 'the duration is a number of seconds'
    {
        opening step_completed
        field step_name "$1"
        field step_status "$2"
        [ $# -eq 2 ] || printf ',"duration":%s' "$3"
        printf '}'
    } >"$_work/message"
    post "end of step $1"
}

log() {
    _level=info
    if [ $# -eq 0 ]; then
        start_shipping "$_level"
        cat >>"$_work/output"
        finish_shipping
        return
    fi
    # a single word is the message, whatever it is: log "$line" must not wait for input when line is "error"
    case $#:$1 in
        1:*) ;;
        *:debug | *:info | *:warn | *:warning | *:error | *:fatal)
            _level=$1
            shift
            ;;
    esac
    {
        opening log_entry
        field level "$_level"
        field message "$*"
        [ -z "$_lines_step" ] || field step_name "$_lines_step"
        printf ',"source":"workflow"}'
    } >"$_work/message"
    post 'log line'
}

job_log() {
    _lines=job
    _line_time=$(now)
    cat >"$_work/output"
    [ -z "$_disabled" ] || return
    _sent_bytes=0
    _batch_bytes=0
    _tries=5
    send_lines info 1 || undelivered "log lines were not delivered: $(reason)"
}

# A message that was refused doesn't hold up the next; a sidecar that doesn't answer is left alone.
send() {
    while IFS= read -r _message || [ -n "$_message" ]; do
        [ -n "$_message" ] || continue
        [ -z "$_disabled" ] || return
        printf '%s' "$_message" >"$_work/message"
        deliver "$_work/message" "$(content_key "$_work/message")" 5
        case $? in
            1)
                undelivered "a message and all after it were not delivered: $(reason)"
                return
                ;;
            2) undelivered "a message was refused: $(reason)" ;;
        esac
    done
}

metrics() {
    [ $# -ge 1 ] || misused 'metrics needs KEY=VALUE'
    for _pair in "$@"; do
        case $_pair in [!=]*=*) ;; *) misused "metrics needs KEY=VALUE, not $_pair" ;; esac
    done
    {
        opening metrics_update
        printf ',"metrics":'
        _separator='{'
        for _pair in "$@"; do
            _value=${_pair#*=}
            printf '%s%s:' "$_separator" "$(string "${_pair%%=*}")"
            if is_number "$_value" || [ "$_value" = true ] || [ "$_value" = false ]; then
                printf '%s' "$_value"
            else
                string "$_value"
            fi
            _separator=,
        done
        printf '}}'
    } >"$_work/message"
    post metrics
}

try() {
    [ -z "$_disabled" ] || exit 1
    printf '{"type":"test","project":%s,"timestamp":"%s"}' "$_project_json" "$(now)" >"$_work/message"
    post 'test message' || exit 1
    echo "delivered: the sidecar answered HTTP $_status"
}

# ---- start -----------------------------------------------------------------------------------------

# shellcheck disable=SC2317 # a trap calls it
clean_up() {
    [ -z "$_shipper" ] || kill -KILL "$_shipper" 2>/dev/null
    rm -rf "$_work"
}

end_on_signals() {
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Sets _disabled to why nothing can be sent. Quotes and newlines in these values would be read by curl
# as further options.
check_settings() {
    _disabled=
    _url=${SIDECAR_URL:-http://127.0.0.1:8091/project-dashboard}
    _url=${_url%/}
    case $_url in
        *[[:space:][:cntrl:]\"\\]*) _disabled='SIDECAR_URL holds characters that no URL has' ;;
        http://?* | https://?*) ;;
        *) _disabled='SIDECAR_URL is not an http or https URL' ;;
    esac
    case ${SIDECAR_TOKEN-} in
        *[!A-Za-z0-9._~+/=-]*) _disabled='SIDECAR_TOKEN holds characters that no token has' ;;
    esac
    case ${SIDECAR_GIVE_UP_SECONDS:-30} in
        *[!0-9]*) _disabled='SIDECAR_GIVE_UP_SECONDS is not a whole number' ;;
    esac
    case ${SIDECAR_ATTEMPT:-1} in
        *[!0-9]* | 0*) _disabled='SIDECAR_ATTEMPT is not a number from 1' ;;
    esac
    is_number "${SIDECAR_RETRY_SECONDS:-1}" || _disabled='SIDECAR_RETRY_SECONDS is not a number'
    [ -n "${SIDECAR_PROJECT-}" ] || _disabled='SIDECAR_PROJECT is not set'
    command -v curl >/dev/null || _disabled='curl is not installed'
    if [ -n "${SIDECAR_WEBHOOK_SECRET-}" ] && [ -z "${SIDECAR_TOKEN-}" ]; then
        if command -v sha256sum >/dev/null || command -v openssl >/dev/null; then
            prepare_signing
        else
            _disabled='SIDECAR_WEBHOOK_SECRET needs sha256sum or openssl'
        fi
    fi
    [ -z "$_disabled" ] || undelivered "nothing is sent: $_disabled"
}

# Exported, so that a notify.sh inside a step's command reports to the same deployment.
identify() {
    _deployment_id=${SIDECAR_DEPLOYMENT_ID:-${GITHUB_RUN_ID:-${CI_PIPELINE_ID:-}}}
    if [ -z "$_deployment_id" ]; then
        _deployment_id=$(date -u '+%Y%m%d%H%M%S')-$(random_hex 4)
        case $1 in
            start | test) ;;
            *) warn "no SIDECAR_DEPLOYMENT_ID: this is a deployment of its own, $_deployment_id" ;;
        esac
    fi
    SIDECAR_DEPLOYMENT_ID=$_deployment_id
    export SIDECAR_DEPLOYMENT_ID
    _attempt_number=''
    if [ "$_deployment_id" = "${GITHUB_RUN_ID-}" ] && is_number "${GITHUB_RUN_ATTEMPT-}"; then
        _attempt_number=$GITHUB_RUN_ATTEMPT # a run that is started again keeps its id
    fi
    _attempt_number=${SIDECAR_ATTEMPT:-$_attempt_number}
    _project_json=$(string "${SIDECAR_PROJECT-}")
    _deployment_json=$(string "$_deployment_id")
}

[ $# -ge 1 ] || {
    usage >&2
    exit 2
}
_subcommand=$1
shift
case $_subcommand in
    start | finish | step | step-started | step-completed | log | job-log | metrics | send | test) ;;
    help | -h | --help)
        usage
        exit
        ;;
    *) misused "unknown subcommand $_subcommand" ;;
esac

_step=''
_lines=lines
_line_time=''
_lines_step=${SIDECAR_STEP-}
_shipper=''
_work=$(mktemp -d "${TMPDIR:-/tmp}/sidecar-notify.XXXXXX") || exit 1
trap clean_up EXIT
end_on_signals
check_settings
identify "$_subcommand"
case $_subcommand in
    start) start ;;
    finish) finish "$@" ;;
    step) step "$@" ;;
    step-started) step_started "$@" ;;
    step-completed) step_completed "$@" ;;
    log) log "$@" ;;
    job-log) job_log ;;
    metrics) metrics "$@" ;;
    send) send ;;
    test) try ;;
esac
[ "${SIDECAR_STRICT-}" != 1 ] || [ ! -e "$_work/undelivered" ] || exit 1
exit 0
