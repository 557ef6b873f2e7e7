# Shared by start.sh, stop.sh and topic.sh, which source it: the folder of the
# jars, the tools they need, and the test whether a process is our broker.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Is process $1 the broker that runs with the settings file $2? The file's path
# is one whole argument of it, so a process id used anew by another program, or
# by the broker of another folder, is not taken for ours.
is_broker() {
    [ -n "$1" ] && grep -qszxF -e "$2" "/proc/$1/cmdline"
}

# Ends with a list of what is missing among the commands $@.
need() {
    local tool version missing=0
    for tool in "$@"; do
        command -v "$tool" >/dev/null && continue
        missing=1
        case $tool in
        java) echo "java is missing (17 or later): apt-get install default-jre-headless" >&2 ;;
        mvn) echo "mvn is missing: apt-get install maven" >&2 ;;
        flock) echo "flock is missing: apt-get install util-linux" >&2 ;;
        *) echo "$tool is missing" >&2 ;;
        esac
    done
    [ "$missing" = 0 ] || exit 1
    version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 17 ] ||
        die "java is version ${version:-unknown}, Kafka needs 17 or later: apt-get install default-jre-headless"
}

# Sets $lib to a folder with all jars of pom.xml and fills it where necessary.
# The folder lies outside the clone, so that each clone finds it filled; the
# file .pom in it tells for which pom.xml it is complete.
resolve_jars() {
    local version sum
    version=$(sed -n 's:.*<kafka\.version>\(.*\)</kafka\.version>.*:\1:p' "$here/pom.xml")
    lib=${KAFKA_LIB:-${XDG_CACHE_HOME:-${HOME:?is not set; set KAFKA_LIB}/.cache}/bifold/kafka/$version}
    sum=$(sha256sum <"$here/pom.xml")
    sum=${sum%% *}
    # Looked at before anything is written: a filled folder may be read-only,
    # and needs no Maven.
    if [ "$(cat "$lib/.pom" 2>/dev/null)" = "$sum" ]; then
        need java flock
        return
    fi
    need java flock mvn
    mkdir -p "$lib"
    lib=$(cd "$lib" && pwd -P)
    exec 8>"$lib/.lock"
    flock -w 600 8 || die "another process has been filling $lib for 10 minutes"
    if [ "$(cat "$lib/.pom" 2>/dev/null)" != "$sum" ]; then
        # Only jars that were put there by this function are replaced.
        [ -e "$lib/.pom" ] || ! compgen -G "$lib/*.jar" >/dev/null ||
            die "$lib holds jars of something else; name another folder in KAFKA_LIB"
        echo "fetching the jars of Kafka $version into $lib" >&2
        echo incomplete >"$lib/.pom"
        rm -f "$lib"/*.jar
        mvn -B -q -f "$here/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$lib" >"$lib/.mvn.log" 2>&1 ||
            { cat "$lib/.mvn.log" >&2; die "mvn could not fetch the jars"; }
        echo "$sum" >"$lib/.pom"
    fi
    exec 8>&-
}
