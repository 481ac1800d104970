#!/usr/bin/env bash
# Stands in for `pipe-cuda-worker` where there is no GPU. Asked for devices it says what FAKE_DEVICES and
# FAKE_STDERR hold and ends with FAKE_CODE; a stage it notes in FAKE_LOG and lets `pipe worker` compute it.
if [ "$1" = --devices ]; then
    echo probe >>"$FAKE_LOG"
    printf '%b' "$FAKE_STDERR" >&2
    printf '%b' "$FAKE_DEVICES"
    exit "${FAKE_CODE:-0}"
fi
exec "$FAKE_PIPE" worker < <(
    IFS= read -r job
    [[ $job =~ \"stage\":\"([a-z_]+)\" ]]
    echo "${BASH_REMATCH[1]} on $CUDA_VISIBLE_DEVICES" >>"$FAKE_LOG"
    printf '%s\n' "${job/\"device\":\"cuda\"/\"device\":\"cpu\"}"
    exec cat
)
