# What a session does in its machine: clone, set up, work, and give back what was done on its own branch.
# Run by sh with the agent's command as its arguments; the rest stands in the environment.
set -u
stage() { printf '%s\n' "$1" > "$BAILEE_STAGE"; }
fail() {
    printf 'bailee: %s\n' "$1" >&2
    exit "$2"
}

if [ ! -d repository/.git ]; then
    stage cloning
    rm -rf repository
    git clone --quiet -- "$BAILEE_REPOSITORY" repository || fail "the repository cannot be cloned" 101
    cd repository || exit 101
    if [ -n "$BAILEE_BASE" ]; then
        git checkout --quiet "$BAILEE_BASE" || fail "there is no branch $BAILEE_BASE" 101
    fi
    git checkout --quiet -b "$BAILEE_BRANCH" || fail "the session's branch cannot be made" 101
    if [ -n "$BAILEE_SETUP" ]; then
        sh -eu -c "$BAILEE_SETUP" || fail "the set-up script ended with $?" 102
    fi
else
    cd repository || exit 101
fi

stage working
"$@"
status=$?

stage pushing
if [ -n "$(git status --porcelain)" ]; then
    git add -A && git commit --quiet -m "Work that the session left uncommitted" || fail "the work cannot be committed" 103
fi
if [ -n "$(git log --branches --not --remotes --format=%H -1)" ]; then
    git push --quiet origin "HEAD:refs/heads/$BAILEE_BRANCH" || fail "the work cannot be pushed" 103
fi
exit "$status"
