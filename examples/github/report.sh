#!/usr/bin/env bash
# What the action does (action.yml): reports to the sidecar, by notify.sh, and never fails the job that it runs in.
# bash 3.2 or later, curl, jq.
#
# Everything from outside comes by environment variables and files, and goes on through jq: names, titles and log lines
# are written by people who may not deploy. Nothing of it is printed but on a line of our own.

{ set +x; } 2>/dev/null # a trace would print the tokens
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
notify=$here/notify.sh                            # copied beside this file
[ -f "$notify" ] || notify=${here%/*}/notify.sh # or as in the sidecar's repository
work=$(mktemp -d "${RUNNER_TEMP:-${TMPDIR:-/tmp}}/sidecar-report.XXXXXX") || exit 0
code=0
trap 'rm -rf "$work"; exit "$code"' EXIT

budget_seconds=300 # for all that isn't followed: a job must not wait for a report
# REPORT_PAUSE, in place of every pause below, is for tests.

plain() { printf '%s' "$*" | LC_ALL=C tr '\000-\037\177' ' '; }

say() { printf 'sidecar: %s\n' "$(plain "$*")"; }

# An annotation: it is shown on the run's page. GitHub reads %25 there as %.
warn() {
    local text
    text=$(plain "$*")
    printf '::warning title=sidecar::%s\n' "${text//%/%25}"
    [ "${SIDECAR_STRICT-}" != 1 ] || code=1
}

# report NOTIFY_ARGUMENTS...: 1 when something was not delivered; why becomes a warning.
report() {
    local line result
    SIDECAR_STRICT=1 sh "$notify" "$@" >"$work/output" 2>"$work/errors"
    result=$?
    while IFS= read -r line; do warn "${line#notify.sh: }"; done <"$work/errors"
    return "$result"
}

is_number() { [[ $1 =~ ^[0-9]{1,18}$ ]]; }

number_or() { if is_number "$1"; then printf '%s' "$1"; else printf '%s' "$2"; fi; }

now() { date -u '+%Y-%m-%dT%H:%M:%SZ'; }

# ---- GitHub's API ----------------------------------------------------------------------------------------------------

# header NAME: of GitHub's last answer.
header() {
    tr -d '\r' <"$work/headers" | awk -v name="$1" -F': ' 'tolower($1) == name { value = $2 } END { print value }'
}

# get PATH FILE [ETAG]: 0 and $status 200, or 304 when nothing changed since that ETag; else 1 and $status. The address
# of a log leads to another host, which curl doesn't give the token to.
get() {
    local try pause
    for try in 1 2 3; do
        : >"$work/headers"
        status=$(
            {
                printf 'url = "%s%s"\n' "${GITHUB_API_URL:-https://api.github.com}" "$1"
                printf 'header = "Authorization: Bearer %s"\n' "$API_TOKEN"
                printf 'header = "Accept: application/vnd.github+json"\n'
                printf 'header = "X-GitHub-Api-Version: 2022-11-28"\n'
                [ -z "${3-}" ] || printf 'header = "If-None-Match: %s"\n' "${3//\"/\\\"}"
            } | curl -q --config - --silent --show-error --location --proto '=http,https' --connect-timeout 5 \
                --max-time 60 --user-agent sidecar-report/1.0 --dump-header "$work/headers" --output "$2" \
                --write-out '%{http_code}' 2>"$work/curl_error"
        )
        pause=$((try * try))
        case $status in
            200 | 304) return 0 ;;
            403 | 429) # too many requests, if it says when to come back; else not allowed
                pause=$(header retry-after)
                is_number "$pause" && [ "$pause" -le 60 ] || return 1
                ;;
            404 | 5?? | 000) ;; # a log is there some moments after its job's end
            *) return 1 ;;
        esac
        [ "$try" -lt 3 ] && [ "$((SECONDS + pause))" -lt "$budget_seconds" ] || return 1
        sleep "${REPORT_PAUSE:-$pause}"
    done
}

why() {
    case $status in
        403)
            if [ "$(header x-ratelimit-remaining)" = 0 ]; then
                printf 'the limit of requests to GitHub is used up'
            else
                printf 'HTTP 403 (permissions: actions: read?)'
            fi
            ;;
        000) cat "$work/curl_error" ;;
        *) printf 'HTTP %s' "$status" ;;
    esac
}

# get_jobs [ETAG]: all jobs of the run's attempt go to $work/jobs, an array; $etag is their first page's.
get_jobs() {
    local page=1 path="/repos/$GITHUB_REPOSITORY/actions/runs/$run_id"
    [ -z "$attempt" ] || path=$path/attempts/$attempt
    : >"$work/pages"
    while get "$path/jobs?per_page=100&page=$page" "$work/page" "${1-}"; do
        [ "$status" != 304 ] || return 0
        [ "$page" -gt 1 ] || etag=$(header etag)
        cat "$work/page" >>"$work/pages"
        # two pages may tell of one job when others were added in between
        jq -cs "[.[].jobs[]] | unique_by(.id) | map(select($others))" "$work/pages" >"$work/jobs" || return 1
        [ "$page" -lt 10 ] && [ "$(jq '.jobs | length' "$work/page")" = 100 ] || return 0
        page=$((page + 1))
        set --
    done
    return 1
}

# ---- messages --------------------------------------------------------------------------------------------------------

# What the run in $work/run and the jobs in $work/jobs amount to, a message a line. Their times are GitHub's, so that
# the same state gives the same messages whenever it is looked at.
# shellcheck disable=SC2016 # jq's variables
messages='
    def seconds($from; $to):
        try (($to | fromdateiso8601) - ($from | fromdateiso8601)) catch null
        | if . == null or . < 0 then null else . end;
    def filled: with_entries(select(.value != null and .value != ""));
    $run[0] as $run | ($jobs[0] // []) as $jobs
    | {
        project: env.SIDECAR_PROJECT, deployment_id: env.SIDECAR_DEPLOYMENT_ID,
        attempt: ($run.run_attempt // 1),
        workflow_name: $run.name, workflow_id: ($run.workflow_id // "" | tostring)
    } as $common
    | def step($id; $name; $url):
        (.status == "completed") as $over
        | (.status == "in_progress" or $over) as $begun
        | $common + {
            type: (if $over then "step_completed" else "step_started" end),
            step_id: $id, step_name: $name, url: $url,
            step_status: (if $over then .conclusion else .status end),
            started_at: (if $begun then .started_at else null end),
            completed_at: (if $over then .completed_at else null end),
            duration: (if $over then seconds(.started_at; .completed_at) else null end),
            timestamp: ((if $over then .completed_at else null end) // .started_at // .created_at // $run.updated_at),
            error_message: ([.steps[]? | select(.conclusion == "failure") | .name] | join(", "))
        } | filled;
    def count($conclusion): [$jobs[] | select(.conclusion == $conclusion)] | length;
    def job_steps:
        .name as $job | .id as $id | .html_url as $url | .steps[]? | select(.status != "queued")
        | step("\($id)/\(.number)"; "\($job) / \(.name)"; $url);
    ($run.run_started_at // $run.created_at) as $started_at
    | ($jobs[] | step(.id | tostring; .name; .html_url), (if env.DETAIL == "steps" then job_steps else empty end)),
    ($common + {
        ref: $run.head_branch, sha: $run.head_sha, url: $run.html_url,
        actor: ($run.triggering_actor.login // $run.actor.login), timestamp: $run.updated_at
    } + if $run.status == "completed" then {
        type: "deployment_completed", status: $run.conclusion,
        started_at: $started_at, completed_at: $run.updated_at, duration: seconds($started_at; $run.updated_at),
        error_message: ([$jobs[] | select(.conclusion == "failure") | .name] | join(", "))
    } else {
        type: "deployment_started", status: $run.status,
        started_at: (if $run.status == "in_progress" then $started_at else null end)
    } end | filled),
    if $run.status == "completed" then $common + {
        type: "metrics_update", timestamp: $run.updated_at,
        metrics: ({
            total_duration: seconds($started_at; $run.updated_at),
            start_time: $started_at, end_time: $run.updated_at, status: $run.conclusion
        } + if $jobs == [] then {} else {
            steps_count: ($jobs | length), successful_steps: count("success"),
            failed_steps: (count("failure") + count("timed_out")),
            cancelled_steps: count("cancelled"), skipped_steps: count("skipped")
        } end)
    } else empty end'

# Sends what was not sent before by this process.
send_messages() {
    jq -nca --slurpfile run "$work/run" --slurpfile jobs "$work/jobs" "$messages" >"$work/messages"
    grep -Fxv -f "$work/sent" "$work/messages" >"$work/new"
    cat "$work/new" >>"$work/sent"
    report send <"$work/new"
}

# ---- logs ------------------------------------------------------------------------------------------------------------

# Sends the logs of the jobs that ended, failed ones first, each once. A job that never began has none.
send_logs() {
    local line id name lines
    jq -ca '[.[] | select(.status == "completed" and .conclusion != "skipped" and .steps != [])]
        | sort_by(.conclusion == "success", .id)[] | [.id, .name]' "$work/jobs" >"$work/ended"
    while IFS= read -r line; do
        id=$(jq -r '.[0] | tostring' <<<"$line")
        case " $logged " in *" $id "*) continue ;; esac
        name=$(jq -r '.[1]' <<<"$line")
        logged="$logged $id"
        if [ "$log_count" -ge "$log_jobs" ] || [ "$SECONDS" -ge "$budget_seconds" ]; then
            logs_left_out=$((logs_left_out + 1))
            continue
        fi
        if ! get "/repos/$GITHUB_REPOSITORY/actions/jobs/$id/logs" "$work/log"; then
            warn "no log of the job $name: $(why)"
            case $status in
                404 | 410) continue ;;
                *) return 1 ;;
            esac
        fi
        log_count=$((log_count + 1))
        LC_ALL=C grep -av '^[0-9T:.-]*Z ##\[endgroup\]' "$work/log" >"$work/lines"
        lines=$(wc -l <"$work/lines")
        {
            if [ "$lines" -gt "$log_lines" ]; then
                printf '%s %d earlier lines are left out here\n' \
                    "$(tail -n "$log_lines" "$work/lines" | head -n 1 | cut -d ' ' -f 1)" "$((lines - log_lines))"
            fi
            tail -n "$log_lines" "$work/lines"
        } >"$work/log"
        SIDECAR_STEP=$name report job-log <"$work/log" || return 1
    done <"$work/ended"
}

# ---- a run -----------------------------------------------------------------------------------------------------------

# The run that this is about goes to $work/run: that of the workflow_run event, else the one that we are in.
find_run() {
    if [ "${GITHUB_EVENT_NAME-}" = workflow_run ]; then
        run_id=''
        jq -c '.workflow_run + {name: (.workflow.name // .workflow_run.name)}' "$GITHUB_EVENT_PATH" >"$work/run" &&
            run_id=$(jq -r '.id | tostring' "$work/run")
        if ! is_number "$run_id"; then
            warn 'the event tells of no run'
            return 1
        fi
        # its workflow file may be the fork's own, and with it every name and line
        if ! jq -e --arg here "$GITHUB_REPOSITORY" '.head_repository.full_name == $here' "$work/run" >/dev/null; then
            say "run $run_id is of a fork: not reported"
            return 1
        fi
        return 0
    fi
    run_id=$GITHUB_RUN_ID
    if ! get "/repos/$GITHUB_REPOSITORY/actions/runs/$run_id" "$work/found"; then
        warn "run $run_id can't be looked up: $(why)"
        jq -nc '{name: env.GITHUB_WORKFLOW, head_branch: env.GITHUB_REF_NAME, head_sha: env.GITHUB_SHA,
            actor: {login: env.GITHUB_ACTOR}, status: "in_progress"}' >"$work/found"
    fi
    # the status given is how it ends: while we report, it is still in progress
    NOW=$(now) jq -c '.run_attempt = (env.GITHUB_RUN_ATTEMPT // "1" | tonumber)
        | .updated_at = env.NOW
        | if (env.STATUS // "") == "" then . else .status = "completed" | .conclusion = env.STATUS end' \
        "$work/found" >"$work/run"
}

# The first word behind the prefix that a run's title begins with, the project given, or the repository's name.
choose_project() {
    local title
    title=$(jq -r '.display_title // ""' "$work/run")
    if [ -n "${TITLE_PREFIX-}" ] && [ "${title#"$TITLE_PREFIX"}" != "$title" ]; then
        title=${title#"$TITLE_PREFIX"}
        SIDECAR_PROJECT=${title%%[[:space:]]*}
    fi
}

all_over() { jq -e 'all(.status == "completed")' "$work/jobs" >/dev/null; }

# Tells of each job as it changes, until the run is over: of its end the workflow_run event tells. An answer that
# nothing changed (304) doesn't count against the limit of requests.
follow() {
    local end=$((SECONDS + follow_seconds))
    while [ "$SECONDS" -lt "$end" ]; do
        if all_over && get "/repos/$GITHUB_REPOSITORY/actions/runs/$run_id" "$work/found" &&
            jq -e '.status == "completed"' "$work/found" >/dev/null; then
            return 0
        fi
        sleep "${REPORT_PAUSE:-10}"
        get_jobs "$etag" || {
            warn "the jobs can't be followed any more: $(why)"
            return 1
        }
        if [ "$status" != 304 ]; then
            send_messages
            send_logs || return 1
        fi
    done
    say "not followed any longer than $((follow_seconds / 60)) minutes"
}

report_run() {
    find_run || return 0
    choose_project
    attempt=$(jq -r '.run_attempt // "" | tostring' "$work/run")
    is_number "$attempt" || attempt=''
    : "${SIDECAR_DEPLOYMENT_ID:=$run_id}"
    SIDECAR_ATTEMPT=$attempt
    log_jobs=$(number_or "${LOG_JOBS-}" 20)
    log_lines=$(number_or "${LOG_LINES-}" 10000)
    follow_seconds=$(($(number_or "${FOLLOW_MINUTES-}" 0) * 60))
    [ "$follow_seconds" -le 3000 ] || follow_seconds=3000
    others=true # our own job is never over while it is looked at
    [ "$run_id" != "$GITHUB_RUN_ID" ] || others='.runner_name != env.RUNNER_NAME or .status == "completed"'
    logged='' log_count=0 logs_left_out=0 etag=''
    : >"$work/sent"
    printf '[]\n' >"$work/jobs"
    local state
    state=$(jq -r '.status // ""' "$work/run")

    if [ "$state" = in_progress ] || [ "$state" = completed ]; then # before that there are no jobs to speak of
        get_jobs || warn "the jobs of run $run_id can't be looked up: $(why)"
        # the list may lag behind the event
        if [ "$state" = completed ] && [ "$run_id" != "$GITHUB_RUN_ID" ] && ! all_over; then
            sleep "${REPORT_PAUSE:-5}"
            get_jobs || :
        fi
    fi
    send_messages
    if send_logs && [ "$state" = in_progress ] && [ "$follow_seconds" -gt 0 ]; then
        budget_seconds=$((budget_seconds + follow_seconds))
        follow
    fi
    [ "$logs_left_out" = 0 ] || [ "$log_jobs" = 0 ] ||
        warn "the logs of $logs_left_out more jobs are not sent (log_jobs: $log_jobs)"
    say "told of run $run_id, attempt ${attempt:-1}, of $SIDECAR_PROJECT: $state," \
        "$(jq length "$work/jobs") jobs, logs of $log_count"
}

# ---- the other commands ----------------------------------------------------------------------------------------------

# A step that was done elsewhere, in one message with its log.
report_step() {
    if [ -z "${STEP_NAME-}" ] || [ -z "${STEP_STATUS-}" ]; then
        warn 'a step needs step_name and step_status: nothing is sent'
        return
    fi
    if [ -n "${DURATION-}" ] && ! jq -ne 'env.DURATION | tonumber' >/dev/null 2>&1; then
        warn 'duration is not a number of seconds: left out'
        DURATION=''
    fi
    NOW=$(now) jq -nca '{
        type: "step_manual", project: env.SIDECAR_PROJECT, deployment_id: env.SIDECAR_DEPLOYMENT_ID,
        attempt: (env.SIDECAR_ATTEMPT // ""), timestamp: env.NOW,
        step_name: env.STEP_NAME, step_status: env.STEP_STATUS, logs: (env.LOGS // ""),
        duration: (env.DURATION // "" | if . == "" then null else tonumber end), workflow_name: env.GITHUB_WORKFLOW,
        url: "\(env.GITHUB_SERVER_URL)/\(env.GITHUB_REPOSITORY)/actions/runs/\(env.GITHUB_RUN_ID)"
    } | with_entries(select(.value != null and .value != ""))' >"$work/message"
    report send <"$work/message" && say 'told of the step'
}

report_metrics() {
    local pair pairs=()
    while IFS= read -r pair; do
        [ -z "$pair" ] || pairs+=("$pair")
    done <<<"${METRICS-}"
    [ "${#pairs[@]}" -gt 0 ] || {
        warn 'metrics needs KEY=VALUE, one a line: nothing is sent'
        return
    }
    report metrics "${pairs[@]}"
}

# hand_on FILE NAME VALUE: for the steps that follow, unless a line break in it would make two values of one.
hand_on() {
    case $3 in *[[:cntrl:]]*) return ;; esac
    [ -z "$1" ] || printf '%s=%s\n' "$2" "$3" >>"$1"
}

# Later steps of this job can call notify.sh by its name, and it knows where to report to. Not the token: that is the
# caller's to hand to a step.
begin() {
    report start
    [ -z "${GITHUB_PATH-}" ] || printf '%s\n' "${notify%/*}" >>"$GITHUB_PATH"
    hand_on "${GITHUB_ENV-}" SIDECAR_URL "$SIDECAR_URL"
    hand_on "${GITHUB_ENV-}" SIDECAR_PROJECT "$SIDECAR_PROJECT"
    hand_on "${GITHUB_ENV-}" SIDECAR_DEPLOYMENT_ID "$SIDECAR_DEPLOYMENT_ID"
}

main() {
    local command=${COMMAND:-report}
    if [ -z "${SIDECAR_URL-}" ]; then
        warn 'SIDECAR_URL is not set: nothing is sent'
        return
    fi
    if ! command -v jq >/dev/null || ! command -v curl >/dev/null; then
        warn 'jq and curl are needed on the runner: nothing is sent'
        return
    fi
    [ -n "${SIDECAR_TOKEN-}${SIDECAR_WEBHOOK_SECRET-}" ] ||
        say 'neither SIDECAR_TOKEN nor SIDECAR_WEBHOOK_SECRET is here (forks and Dependabot get no secrets)'
    : "${SIDECAR_PROJECT:=${GITHUB_REPOSITORY#*/}}"
    export SIDECAR_URL SIDECAR_PROJECT SIDECAR_DEPLOYMENT_ID SIDECAR_ATTEMPT
    if [ "$command" = report ]; then
        report_run
    else
        if [ -z "${SIDECAR_DEPLOYMENT_ID-}" ]; then
            SIDECAR_DEPLOYMENT_ID=$GITHUB_RUN_ID
            SIDECAR_ATTEMPT=${GITHUB_RUN_ATTEMPT-}
        fi
        case $command in
            start) begin ;;
            finish) report finish "${STATUS:-${JOB_STATUS-}}" ;;
            step) report_step ;;
            log)
                printf '%s\n' "${LOGS-}" >"$work/lines"
                SIDECAR_STEP=${STEP_NAME-} report log <"$work/lines"
                ;;
            metrics) report_metrics ;;
            test) if report test; then say "$(cat "$work/output")"; else code=1; fi ;;
            *) warn "no such command: $command" ;;
        esac
    fi
    hand_on "${GITHUB_OUTPUT-}" deployment_id "${SIDECAR_DEPLOYMENT_ID-}"
}

main
