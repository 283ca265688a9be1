# Doxygen knows no anchors of headings as GitHub makes them: each heading gets one, with the file's name before it, because
# Doxygen's are of all files; links that name an anchor follow. Pages of other directories, whose name is README.md as that of the
# main page, are not part of the reference: links to them become text.

function file_name(path) {
    sub(/.*\//, "", path)
    sub(/\.md$/, "", path)
    return tolower(path)
}

function anchor(heading,    n) {
    heading = tolower(heading)
    gsub(/[^a-z0-9 _-]/, "", heading)
    gsub(/ /, "-", heading)
    n = n_headings[heading]++
    return file_name(FILENAME) "-" heading (n ? "-" n : "")
}

/^```/ { is_code = !is_code }

!is_code && /^##+ / {
    heading = $0
    sub(/^#+ /, "", heading)
    $0 = $0 " {#" anchor(heading) "}"
}

{
    line = $0
    gsub(/\]\((\.\.\/)?include\//, "](@ref ", line)
    while (!is_code && match(line, /\[[^][]*\]\([^()]*\/README\.md[^()]*\)/)) {
        text = substr(line, RSTART + 1, index(substr(line, RSTART), "]") - 2)
        line = substr(line, 1, RSTART - 1) text substr(line, RSTART + RLENGTH)
    }
    while (!is_code && match(line, /\]\([^():#]*#[^()]*\)/)) {
        printf "%s", substr(line, 1, RSTART + 1)
        split(substr(line, RSTART + 2, RLENGTH - 3), link, "#")
        printf "#%s-%s)", link[1] == "" ? file_name(FILENAME) : file_name(link[1]), link[2]
        line = substr(line, RSTART + RLENGTH)
    }
    print line
}
