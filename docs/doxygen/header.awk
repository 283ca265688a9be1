# Writes a header's comments as Doxygen's: labels ("Shape:", "Errors:") as titles of paragraphs, indented lines, which are
# formulas, as they are, comments behind fields as theirs, and the headings between declarations as groups.

# One line of documentation, without the comment's marks.
function document(text,    indent) {
    if (match(text, /   Allocates:/)) {  # the only label that may stand behind another
        document(substr(text, 1, RSTART - 1))
        text = substr(text, RSTART + 3)
    }
    match(text, /^ */)
    indent = RLENGTH
    text = substr(text, indent + 1)
    is_formula = text != "" && indent >= (is_labelled ? 12 : 4)
    if (is_formula != in_formulas) {
        put(is_formula ? "/// @code{.unparsed}" : "/// @endcode")
        in_formulas = is_formula
    }
    if (!is_formula && match(text, /^(Shape|Units|Pre|Errors|Bound|Threads|Allocates|Source): */)) {
        label = substr(text, 1, index(text, ":") - 1)
        put("/// @par " (label == "Pre" ? "Preconditions" : label))
        text = substr(text, RLENGTH + 1)
        is_labelled = 1
    }
    if (!is_formula) {
        text = link(text)
    }
    if (text ~ /^[-+*] /) {  # no item of a list
        held = held " " text
    } else {
        put("/// " text)
    }
}

# Doxygen links functions and constants that "#" stands before.
function link(text) {
    if (text !~ /KVL_[A-Z_]*_\.\.\./) {
        gsub(/(KVL|kvl)_[A-Za-z0-9_]*[A-Za-z0-9]/, "#&", text)
        gsub(/"#/, "\"", text)  # but not in quotes
    }
    return text
}

# Prints a line when the next one is put: document() may append to it.
function put(line) {
    if (NR > 1 || held != "") {
        print held
    }
    held = line
}

function end_document() {
    if (in_formulas) {
        put("/// @endcode")
    }
    in_formulas = is_labelled = 0
}

# What a field is whose name says it all; "" for other names.
function meaning(field,    things, words) {
    if (field in fields) {
        return fields[field]
    }
    if (field ~ /^n_/) {
        things = substr(field, 3)
        gsub(/_/, " ", things)
        sub(/kv/, "KV", things)
        return "number of " things
    }
    if (field ~ /_format$/) {
        return "format of " rows[substr(field, 1, index(field, "_") - 1)]
    }
    if (field ~ /_rotation$/) {
        return "rotation of " rows[substr(field, 1, index(field, "_") - 1)]
    }
    if (field ~ /_stride_bytes$/) {
        split(field, words, "_")
        return "distance in bytes between the " rows[words[1]] " of consecutive " (words[2] in units ? units[words[2]] : "queries")
    }
    return ""
}

BEGIN {
    rows["k"] = "keys"
    rows["v"] = "values"
    rows["q"] = "queries"
    rows["out"] = "outputs"
    rows["lse"] = "elements of lse"
    rows["bits"] = "bits"
    rows["biases"] = "biases"
    units["token"] = "tokens"
    units["head"] = "heads"
    units["block"] = "blocks"
    fields["struct_size"] = "size of this type in the version that the caller was compiled with"
    fields["head_dim"] = "elements of the row of a key or query"
    fields["v_head_dim"] = "elements of the row of a value or output"
    fields["n_first_f16"] = "first tokens that are kept in f16"
    fields["n_recent_f16"] = "recent tokens that are kept in f16"
    fields["k"] = "rows of keys"
    fields["v"] = "rows of values"
    fields["q"] = "rows of queries"
    fields["out"] = "where the result is written"
    fields["lse"] = "where the logarithms of the sums of exponentials are written"
}

NR == 1 { document("@file") }

/^\/\* ---- / {
    end_document()
    title = $0
    gsub(/^\/\* -+ | -+ \*\/$/, "", title)
    id = tolower(title)
    gsub(/[^a-z]+/, "_", id)
    put((in_group ? "/// @}\n" : "") "\n/// @defgroup " id " " title "\n/// @{\n")
    in_group = 1
    next
}

/^\/\* / {
    in_block = 1
    sub(/^\/\*/, " *")
}

in_block {
    text = $0
    in_block = !sub(/ *\*\/$/, "", text)
    sub(/^ \* ?/, "", text)
    document(text)
    next
}

/^ *\/\/\/?( |$)/ {
    sub(/^ *\/\/\/? ?/, "")
    document($0)
    is_documented = 1
    next
}

{
    end_document()
    field = $0
    sub(/( = .*)?;.*/, "", field)
    sub(/.*[ *]/, "", field)
    if (match($0, /[;,] +(\/\*|\/\/) /) || match($0, /^(#define|    KVL_).* \/\* /)) {
        comment = substr($0, RSTART + RLENGTH)
        if (comment ~ /^(0: |0 where|likewise)/ && meaning(field) != "") {
            comment = meaning(field) "; " comment
        }
        $0 = substr($0, 1, RSTART + RLENGTH - 2) (/\/\* / ? "*< " : "/< ") link(comment)
    } else if (!is_documented && /^    [A-Za-z][^()]*;$/ && meaning(field) != "") {
        $0 = $0 " /**< " meaning(field) " */"
    }
    is_documented = 0
    if (in_group && /^#ifdef __cplusplus/) {
        put("/// @}\n")
        in_group = 0
    }
    put($0)
}

END { print held }
