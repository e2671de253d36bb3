# What a session does in its machine besides the agent's own work: `clone`, `prepare`, `push`.
# What it needs to know stands in the environment.
set -u
fail() {
    printf 'bailee: %s\n' "$1" >&2
    exit 1
}
begin_branch() {
    git checkout --quiet --no-track -B "$BAILEE_BRANCH" "$1" || fail "the session's branch cannot be made"
}

case $1 in
clone)
    [ -d "$HOME" ] || mkdir -p "$HOME"
    [ ! -e repository ] || rm -rf repository
    git clone --quiet -- "$BAILEE_REPOSITORY" repository || fail "the repository cannot be cloned"
    cd repository || exit 1
    if [ -n "$BAILEE_BASE" ]; then
        git rev-parse --quiet --verify "origin/$BAILEE_BASE^{commit}" > /dev/null || fail "there is no branch $BAILEE_BASE"
        begin_branch "origin/$BAILEE_BASE"
    elif git rev-parse --quiet --verify HEAD > /dev/null; then
        begin_branch HEAD
    else
        git checkout --quiet --orphan "$BAILEE_BRANCH" || fail "the session's branch cannot be made"
    fi
    ;;
prepare)
    cd repository && sh -eu -c "$BAILEE_SETUP" || fail "the set-up script ended with $?"
    ;;
push)
    cd repository || exit 1
    if [ -n "$(git status --porcelain)" ]; then
        git add -A && git commit --quiet -m "Work that the session left uncommitted" || fail "the work cannot be committed"
    fi
    if [ -n "$(git log --branches --not --remotes --format=%H -1)" ]; then
        git push --quiet origin "HEAD:refs/heads/$BAILEE_BRANCH" || fail "the work cannot be pushed"
    fi
    ;;
esac
