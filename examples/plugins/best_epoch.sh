#!/bin/sh
# A spiral plugin in shell and awk: publishes a BestEpoch event whenever an epoch ends with the lowest loss so far.
#
#     plugin = SandboxedPlugin.from_command(["/bin/sh", "/path/to/best_epoch.sh"])
#
# It relies on what docs/plugin-protocol.md promises of the host's lines: no blanks between tokens, "method" before
# "params", an integer "id" at the end. `exec`, because a sandboxed plugin is one process. `-W interactive` makes mawk
# read line by line; other awks do so by themselves and ignore it.
exec awk -W interactive '
function after(name) {                    # the text after "name":
    if (!match($0, "\"" name "\":")) return ""
    return substr($0, RSTART + RLENGTH)
}
function string(name,    rest) { rest = after(name); return match(rest, /^"[^"]*"/) ? substr(rest, 2, RLENGTH - 2) : "" }
function number(name,    rest) { rest = after(name); return match(rest, /^-?[0-9.]+([eE][-+]?[0-9]+)?/) ? substr(rest, 1, RLENGTH) : "" }
function send(text) { printf "{\"jsonrpc\":\"2.0\",%s}\n", text; fflush() }
function answer(text) { if (id != "") send("\"id\":" id "," text) }

{
    method = string("method")
    id = match($0, /"id":[0-9]+}$/) ? substr($0, RSTART + 5, RLENGTH - 6) : ""
    if (method == "initialize") {
        answer("\"result\":{\"protocol\":1,\"id\":\"best_epoch\",\"version\":\"1.0\",\"capabilities\":[\"Telemetry\"]," \
               "\"subscriptions\":[\"EpochEnd\"],\"methods\":[\"best\"]}")
    } else if (method == "event") {
        loss = number("loss")
        if (loss != "" && (best == "" || loss + 0 < best + 0)) {
            best = loss
            epoch = number("epoch")
            send("\"method\":\"publish\",\"params\":{\"type\":\"BestEpoch\",\"data\":{\"epoch\":" epoch ",\"loss\":" best "}}")
        }
        answer("\"result\":null")
    } else if (method == "call" && $0 ~ /"method":"best"/) {
        answer("\"result\":" (best == "" ? "null" : "{\"epoch\":" epoch ",\"loss\":" best "}"))
    } else if (method == "load" || method == "ping") {
        answer("\"result\":null")
    } else if (method == "unload") {
        answer("\"result\":null")
        exit 0
    } else {
        answer("\"error\":{\"code\":-32601,\"message\":\"there is no such method\"}")
    }
}'
