# What a session does in its machine besides the agent's own work: `clone`, `prepare`, `check`, `resume`, `push`.
# What it needs to know stands in the environment.
set -u
fail() {
    printf 'bailee: %s\n' "$1" >&2
    exit 1
}
begin_branch() {
    git checkout --quiet --no-track -B "$BAILEE_BRANCH" "$1" || fail "the session's branch cannot be made"
}
list_theirs() {
    # By its address, outside the clone: `origin` and the clone's settings may lead elsewhere.
    GIT_CONFIG_GLOBAL=/dev/null git -C / ls-remote --quiet "$@" "$BAILEE_REPOSITORY" | cut -f 1 |
        git cat-file --batch-check='%(objectname) %(objecttype)' |
        sed -n 's/^\([0-9a-f]*\) commit$/^\1/p'
}
list_new() {
    printf '%s\n' "$theirs" | git rev-list --max-count=1 "$@" --stdin
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
check) # whether another session can begin from what set-up left
    cd repository && git rev-parse --quiet --verify HEAD > /dev/null || fail "no snapshot: the repository is empty"
    # Under whatever name, and by what the host says of itself: what is noted here of its branches may be forged.
    theirs=$(list_theirs)
    [ -z "$(list_new --all HEAD)" ] || fail "no snapshot: the set-up script makes commits"
    ;;
resume) # on a disk of another session that was set up
    cd repository || exit 1
    git fetch --quiet --prune origin || fail "the repository cannot be fetched"
    start=origin/$BAILEE_BASE
    if [ -z "$BAILEE_BASE" ]; then
        git remote set-head origin --auto > /dev/null || fail "the repository does not say where it begins"
        start=origin/HEAD
    fi
    git rev-parse --quiet --verify "$start^{commit}" > /dev/null || fail "there is no branch $BAILEE_BASE"
    begin_branch "$start"
    [ "$2" = "$BAILEE_BRANCH" ] || git branch --quiet -D "$2" || fail "the branch of another session stays"
    ;;
clear)
    find . -mindepth 1 -type d ! -perm -700 -exec chmod u+rwx {} + 2> /dev/null
    find . -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
    ;;
push)
    cd repository || exit 1
    if [ -n "$(git status --porcelain)" ]; then
        git add -A && git commit --quiet -m "Work that the session left uncommitted" || fail "the work cannot be committed"
    fi
    # By what the host says of itself: what is noted here of its branches may be forged.
    theirs=$(list_theirs --heads)
    if git rev-parse --quiet --verify HEAD > /dev/null && [ -n "$(list_new HEAD)" ]; then
        git push --quiet "$BAILEE_REPOSITORY" "HEAD:refs/heads/$BAILEE_BRANCH" || fail "the work cannot be pushed"
        theirs=$(list_theirs --heads)
        [ -z "$(list_new HEAD)" ] || fail "the work is not at $BAILEE_REPOSITORY, where it was pushed to"
    fi
    if [ -n "$(list_new --branches)" ]; then
        printf 'bailee: commits of other branches than %s are not pushed\n' "$BAILEE_BRANCH" >&2
        exit 3
    fi
    ;;
esac
