"""What a session may ask of GitHub's GraphQL API. Pure: what only the host can tell comes out as checks.

`allowed.graphql` is the rule: a part of GitHub's published schema, without searches and what others have.
A document that is not valid under it is refused (GraphQL specification, section 5): every field, every
argument and every field of an input is one that stands there. What a schema cannot say is walked for: that
`repository` names an attached one, and that from there no step leads into another.
"""

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from bailee.flows.git.access import Access, Attached
from bailee.flows.git.github.places import find_named, list_attached
from bailee.flows.git.github.rest import check_base, check_head, check_ref
from bailee.flows.git.github.verdicts import Check, Going, Needed, Refused

if TYPE_CHECKING:
    from graphql import (
        DocumentNode,
        GraphQLSchema,
        OperationDefinitionNode,
        SelectionSetNode,
    )
    from graphql.execution.values import VariableValues
    from graphql.type.definition import GraphQLNamedType

LONGEST_DOCUMENT = 100_000  # characters
MOST_TOKENS = 2_500  # of what validates slowest, 0.6 s; the GitHub CLI sends some 500
# Fragments within fragments make much of little.
MOST_STEPS = 20_000
# What is told of another repository (a fork, the parent): its name card.
_CARD_STEPS = ("owner", "defaultBranchRef")
_PULL_REQUEST = "pullRequestId"


class _Body(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A request (GraphQL over HTTP, "Request Parameters"), without what names a document kept elsewhere."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


class Introspection(msgspec.Struct, frozen=True):
    """A question about the schema, which is answered from the part that a session has.

    Attributes:
        answer: as the host would give it.
    """

    answer: Mapping[str, Any]


@functools.cache
def read_schema() -> "GraphQLSchema":
    """Return the part of GitHub's schema that sessions have; 60 ms."""
    from graphql import build_schema

    return build_schema(files(__package__).joinpath("allowed.graphql").read_text())


def judge_graphql(access: Access, host: str, body: bytes) -> Going | Introspection:
    """Return what may go on of a request.

    Args:
        host: that of the repositories it may be for.

    Raises:
        Refused: a session may not do that, or it cannot be read in one way only.
    """
    try:
        return _judge(access, host, body)
    except RecursionError:
        raise Refused("graphql_syntax", "the document, or a variable, is too deep") from None


def _judge(access: Access, host: str, body: bytes) -> Going | Introspection:
    asked = _read_body(body)
    document = _parse(asked.query)
    operation = _find_operation(document, asked.operation_name)
    schema = read_schema()
    _validate(schema, document)
    variables = _read_variables(schema, operation, asked.variables or {})
    walk = _Walk(schema, document, operation, variables)
    fields = walk.list_fields()
    if any(name.startswith("__") for name, _ in fields):
        return _introspect(schema, document, fields, asked.variables or {})
    repository: Attached | None
    if operation.operation.value == "mutation":
        repository, refs, checks = _judge_mutations(access, host, fields)
        route = "mutation " + " ".join(sorted({name for name, _ in fields}))
        is_write = True
    else:
        (repository, checks), refs = _judge_queries(access, host, fields), ()
        route, is_write = "query", False
    from graphql import print_ast

    written: dict[str, Any] = {"query": print_ast(document), "variables": _keep_declared(operation, asked)}
    return Going(
        "POST",
        "",
        f"POST /graphql {route}",
        repository,
        is_write=is_write,
        refs=refs,
        checks=checks,
        body=written,
    )


# --- Reading ---


def _read_body(body: bytes) -> _Body:
    try:
        asked = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        reason = (
            "a request is one JSON object of query, variables and operationName: no list, no stored query"
        )
        raise Refused("graphql_body", reason, 400) from None
    if len(asked.query) > LONGEST_DOCUMENT:
        raise Refused("graphql_body", f"a document has at most {LONGEST_DOCUMENT} characters")
    return asked


def _parse(text: str) -> "DocumentNode":
    from graphql import GraphQLError, parse

    try:
        return parse(text, no_location=True, max_tokens=MOST_TOKENS)
    except GraphQLError as fault:
        raise Refused("graphql_syntax", f"the document cannot be read: {fault.message[:300]}", 400) from None


def _find_operation(document: "DocumentNode", name: str | None) -> "OperationDefinitionNode":
    from graphql import OperationDefinitionNode

    found = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
    if len(found) != 1:
        raise Refused("graphql_body", "a document has one operation")
    own = found[0].name.value if found[0].name else None
    if name and name != own:
        raise Refused("graphql_body", "operationName names no operation of the document")
    if found[0].operation.value == "subscription":
        raise Refused("graphql_field", "a session subscribes to nothing")
    return found[0]


def _validate(schema: "GraphQLSchema", document: "DocumentNode") -> None:
    from graphql import validate

    if faults := validate(schema, document, max_errors=3):
        raise Refused("graphql_field", f"this is not what a session asks: {faults[0].message[:300]}")


def _read_variables(
    schema: "GraphQLSchema", operation: "OperationDefinitionNode", given: dict[str, Any]
) -> "VariableValues":
    from graphql.execution.values import get_variable_values

    found = get_variable_values(schema, operation.variable_definitions or (), given, max_errors=3)
    if isinstance(found, list):
        raise Refused("graphql_field", f"this is not what a session asks: {found[0].message[:300]}")
    return found


def _keep_declared(operation: "OperationDefinitionNode", asked: _Body) -> dict[str, Any]:
    declared = {one.variable.name.value for one in operation.variable_definitions or ()}
    return {name: value for name, value in (asked.variables or {}).items() if name in declared}


# --- The walk ---


class _Walk:
    """Goes through all that an operation can ask for, whatever @skip and @include say of it."""

    def __init__(
        self,
        schema: "GraphQLSchema",
        document: "DocumentNode",
        operation: "OperationDefinitionNode",
        variables: "VariableValues",
    ) -> None:
        from graphql import FragmentDefinitionNode

        self._schema = schema
        self._operation = operation
        self._variables = variables
        self._fragments: dict[str, FragmentDefinitionNode] = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        self._steps = 0
        self._found: list[tuple[str, dict[str, Any]]] = []

    def list_fields(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the fields of the root with their arguments, variables put in.

        Raises:
            Refused: a step leads into another repository, or there are too many.
        """
        root = self._schema.get_root_type(self._operation.operation)
        assert root is not None  # the document is valid
        self._go(self._operation.selection_set, root, is_root=True, is_card=False)
        return self._found

    def _go(
        self, selections: "SelectionSetNode", kind: "GraphQLNamedType", *, is_root: bool, is_card: bool
    ) -> None:
        from graphql import FieldNode, FragmentSpreadNode, InlineFragmentNode, get_named_type
        from graphql.execution.values import get_argument_values

        for one in selections.selections:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise Refused("graphql_field", "the document asks for too much")
            if isinstance(one, FragmentSpreadNode):
                fragment = self._fragments[one.name.value]
                inner = self._schema.type_map[fragment.type_condition.name.value]
                self._go(fragment.selection_set, inner, is_root=is_root, is_card=is_card)
            elif isinstance(one, InlineFragmentNode):
                named = one.type_condition
                inner = self._schema.type_map[named.name.value] if named else kind
                self._go(one.selection_set, inner, is_root=is_root, is_card=is_card)
            elif isinstance(one, FieldNode):
                name = one.name.value
                if name.startswith("__"):
                    if is_root:
                        self._found.append((name, {}))
                    continue
                definition = kind.fields[name]  # type: ignore[attr-defined]  # valid, so it has it
                if is_root:
                    self._found.append((name, get_argument_values(definition, one, self._variables)))
                if one.selection_set is None:
                    continue
                if is_card and name not in _CARD_STEPS:
                    raise Refused("graphql_field", f"{name} leads into another repository")
                inner = get_named_type(definition.type)
                is_other = is_card or (inner.name == "Repository" and not is_root)
                self._go(one.selection_set, inner, is_root=False, is_card=is_other)


# --- Judging ---


def _introspect(
    schema: "GraphQLSchema",
    document: "DocumentNode",
    fields: list[tuple[str, dict[str, Any]]],
    variables: dict[str, Any],
) -> Introspection:
    """Answer what clients ask to find out what there is, so that they ask for nothing that is refused."""
    from graphql import execute_sync

    if not all(name.startswith("__") for name, _ in fields):
        raise Refused("graphql_field", "a question about the schema stands alone")
    answer = execute_sync(schema, document, variable_values=variables)
    return Introspection(dict(answer.formatted))


def _judge_queries(
    access: Access, host: str, fields: list[tuple[str, dict[str, Any]]]
) -> tuple[Attached | None, tuple[Check, ...]]:
    checks = tuple(Check(arguments["id"], Needed.TALK) for name, arguments in fields if name == "node")
    named = [(arguments["owner"], arguments["name"]) for name, arguments in fields if name == "repository"]
    found = {_find(access, host, f"{owner}/{name}").place: f"{owner}/{name}" for owner, name in named}
    if len(found) > 1:
        raise Refused("graphql_field", "a document is for one repository")
    if found:
        return _find(access, host, next(iter(found.values()))), checks
    attached = list_attached(access, host)
    if checks and len(attached) > 1:
        raise Refused("graphql_field", "a node is asked for beside the repository it is of")
    return (attached[0] if checks else None), checks


def _judge_mutations(
    access: Access, host: str, fields: list[tuple[str, dict[str, Any]]]
) -> tuple[Attached, tuple[str, ...], tuple[Check, ...]]:
    repository = _find_writable(access, host, fields)
    refs: list[str] = []
    checks: list[Check] = []
    for name, arguments in fields:
        given = arguments["input"]
        match name:
            case "createPullRequest":
                check_head(given["headRefName"], repository)
                check_base(given["baseRefName"], needed=True)
                checks += [Check(given["repositoryId"], Needed.REPOSITORY)]
                if given.get("headRepositoryId") is not None:
                    checks += [Check(given["headRepositoryId"], Needed.REPOSITORY)]
            case "addComment":
                checks += [Check(given["subjectId"], Needed.TALK)]
            case "createRef":
                check_ref(given["name"], repository)
                checks += [Check(given["repositoryId"], Needed.REPOSITORY)]
                refs.append(given["name"])
            case "updateRef":
                checks += [Check(given["refId"], Needed.OWN_BRANCH)]
                refs.append(f"refs/heads/{repository.branch}")
            case "createCommitOnBranch":
                branch = given["branch"].get("branchName")
                if branch not in (repository.branch, f"refs/heads/{repository.branch}"):
                    reason = f"a session writes to its own branch alone: {repository.branch}"
                    raise Refused("branch", reason)
                refs.append(f"refs/heads/{repository.branch}")
            case _:
                check_base(given.get("baseRefName"), needed=False)
                checks += [Check(given[_PULL_REQUEST], Needed.OWN_PULL_REQUEST)]
    return repository, tuple(dict.fromkeys(refs)), tuple(dict.fromkeys(checks))


def _find_writable(access: Access, host: str, fields: list[tuple[str, dict[str, Any]]]) -> Attached:
    """Return the repository that mutations are for: the one that is named, or the only one with a branch."""
    for name, arguments in fields:
        if name == "createCommitOnBranch":
            named = arguments["input"]["branch"].get("repositoryNameWithOwner") or ""
            found = _find(access, host, named)
            if not found.branch:
                raise Refused("read_only", f"this session may read {found.place}, and write nothing to it")
            if any(
                other["input"]["branch"].get("repositoryNameWithOwner") != named
                for what, other in fields
                if what == "createCommitOnBranch"
            ):
                raise Refused("graphql_field", "a document is for one repository")
            return found
    writable = [one for one in list_attached(access, host) if one.branch]
    if not writable:
        raise Refused("read_only", "this session may read, and write nothing")
    if len(writable) > 1:
        # An id does not say which; REST names the repository.
        raise Refused("graphql_field", "this session has several repositories to write to: use REST for it")
    return writable[0]


def _find(access: Access, host: str, name: str) -> Attached:
    if (found := find_named(access, host, name)) is None:
        raise Refused("not_attached", f"{host}/{name[:200]} is not attached to this session")
    return found
