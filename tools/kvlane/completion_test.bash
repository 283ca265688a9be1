#!/usr/bin/env bash
# Sources the completion and calls it as bash would: completion_test.bash COMPLETION PROGRAM MODELS_INC FORMATS_INC
set -euo pipefail
completion=$1 program=$2 models_inc=$3 formats_inc=$4

# shellcheck source=/dev/null
source "$completion"
[ "$(complete -p kvlane)" = 'complete -o default -F _kvlane kvlane' ] || { echo "kvlane has no completion"; exit 1; }

# offers EXPECTED WORDS...: what is offered for the last of the words, in order
offers() {
    local expected=$1
    shift
    COMP_WORDS=("$program" "$@")
    COMP_CWORD=$#
    _kvlane "$program"
    if [ "${COMPREPLY[*]-}" != "$expected" ]; then
        echo "for \"$*\" there should be \"$expected\", not \"${COMPREPLY[*]-}\""
        exit 1
    fi
}

models=$(sed -n 's/^MODEL("\([^"]*\)".*/\1/p' "$models_inc" | xargs)
formats=$(sed -n 's/^KVLANE_FORMAT(\([^,]*\),.*/\1/p' "$formats_inc" | xargs)
offers '--help --version info size bench check' ''
offers 'size' si
offers '--help --json' info -
offers '--config --ctx --cache' size --c
offers "$models" size --model ''
offers 'llama-3-8b llama-3-70b' size --model llama-3
offers 'llama-3-8b llama-3-70b' size --model = llama-3
offers "$models" size --model =
offers "$formats" size --ctx 100 --cache ''
offers "$formats" bench --format ''
offers '' size --config ''
