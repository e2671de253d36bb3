"""Accounts and organizations, and the consents they gave: who there is and what they allowed."""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import sqlalchemy.exc

from bailee.accounts import tables
from bailee.accounts.holders import user_name
from bailee.accounts.names import check_name
from bailee.accounts.people import Access, Account, Change, Kind
from bailee.accounts.removal import remove_account
from bailee.accounts.tables import Role
from bailee.database.engines import open_database, truncate_log
from bailee.ledger.entries import ConsentChanged, ConsentRefused, ContentRead, LimitChanged, MemberAdded
from bailee.ledger.outbox import put
from bailee.ledger.pseudonyms import OPERATOR, Pseudonyms, open_pseudonyms
from bailee.policy.consents import REFUSABLE, Consent, Grantor, require_available, require_grant
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period
from bailee.policy.plans import Plan, Provider, is_consumer
from bailee.policy.problems import Problem

FILE_NAME = "accounts.db"
DEFAULT_NAME = "me"
# Of so many accounts the consents are looked for one by one.
_FEW = 50


class NameTaken(Problem):
    """There is an account of that name already."""


class Directory:
    """Accounts, organizations and consents in one database.

    Args:
        pseudonyms: opens what gives the ledger its names of people; called when something is to be told.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        engine: sa.Engine,
        pseudonyms: Callable[[], Pseudonyms],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine = engine
        self._open_pseudonyms = pseudonyms
        self._pseudonyms: Pseudonyms | None = None
        self._clock = clock

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        return int(self._clock() * 1000)

    def add(
        self,
        name: str,
        plan: Plan,
        *,
        organization: str | None = None,
        role: Role | None = None,
        retention: Period | None = None,
        user_id: int | None = None,
        by: str = "",
    ) -> Account:
        """Add an account.

        A commercial account always has an organization, one of its own name if none is given; the first
        account of an organization is its admin. A consumer account has none.

        Args:
            user_id: the user of this machine who is the account holder; None where only a key tells.
            by: who adds it to an organization that there is, as `ledger.pseudonyms` knows them; empty for
                whoever runs this program.

        Raises:
            Problem: the name is taken or not a name, or a consumer is given an organization or a role.
        """
        check_name(name, where="NAME")
        if is_consumer(plan):
            if organization or role:
                raise Problem(
                    f"the {plan} plan is a person's own and has no organization",
                    where="--org",
                    fix="leave --org and --role out, or choose a commercial plan such as team",
                )
        else:
            organization = check_name(organization or name, where="--org")
        accounts, organizations = tables.accounts, tables.organizations
        id, is_new = secrets.token_hex(16), True
        taken = NameTaken(
            f"there is an account {name!r} already",
            where="NAME",
            fix="it may be the one you mean: bailee accounts list; else choose another name",
        )
        with _refusing(taken), self.engine.begin() as connection:
            if connection.execute(sa.select(accounts.c.id).where(accounts.c.name == name)).first():
                raise taken
            if organization is not None:
                known = sa.select(organizations.c.name).where(organizations.c.name == organization)
                is_new = connection.execute(known).first() is None
                if is_new:
                    connection.execute(sa.insert(organizations).values(name=organization))
                role = role or (Role.ADMIN if is_new else Role.MEMBER)
            connection.execute(
                sa.insert(accounts).values(
                    id=id,
                    name=name,
                    plan=plan.value,
                    organization=organization,
                    role=role.value if role else None,
                    retention=str(retention) if retention else None,
                    user_id=user_id,
                )
            )
            if organization is not None and not is_new:
                entry = MemberAdded(
                    id=secrets.token_hex(16),
                    at_ms=self.now_ms(),
                    subject=self.name(id),
                    organization=self.name(organization),
                    role=str(role),
                    by=self.name(by or f"{OPERATOR}{user_name()}"),
                )
                put(connection, tables.outbox, [entry])
            if user_id == os.getuid():
                # Whoever signed in to the console before their account was there need not sign in anew.
                waiting = tables.sign_ins.c.account.is_(None) & (tables.sign_ins.c.user == user_name())
                connection.execute(sa.update(tables.sign_ins).where(waiting).values(account=id))
        return self.get(name)

    def get(self, name: str) -> Account:
        """Return an account by its name.

        Raises:
            Problem: there is none of that name.
        """
        for account in self._read(tables.accounts.c.name == name):
            return account
        raise Problem(
            f"there is no account {name!r}",
            fix="see: bailee accounts list; or add it: bailee accounts add NAME --plan PLAN",
        )

    def find(self, id: str) -> Account | None:
        """Return the account of an id; None where there is none."""
        return next(iter(self._read(tables.accounts.c.id == id)), None)

    def all(self) -> list[Account]:
        """Return every account, by name."""
        return self._read(sa.true())

    def ensure_default(self) -> Account:
        """Return the one account there is, or make `me`, plan api, where there is none.

        Raises:
            Problem: there are several, so one has to be chosen.
        """
        accounts = self.all()
        if not accounts:
            with contextlib.suppress(Problem):  # another process has just made it
                return self.add(DEFAULT_NAME, Plan.API, user_id=os.getuid())
            return self.get(DEFAULT_NAME)
        if len(accounts) == 1:
            return accounts[0]
        for account in accounts:
            if account.name == DEFAULT_NAME:
                return account
        raise Problem(
            f"there are {len(accounts)} accounts", where="--account", fix="say whose session this is"
        )

    def consent(self, account: str, *, given: bool, by: str = "") -> Change:
        """Record an account holder's own choice on training; `choices.choose_training` asks for the proof.

        Args:
            by: another, who ends it for them: what `ledger.pseudonyms` knows that person by.

        Raises:
            Problem: the plan has no training switch, or there is no such account.
        """
        holder = self.get(account)
        with self.telling_refusals(Kind.TRAINING, given, by or holder.id, of=holder.id):
            if given:
                require_grant(Consent.TRAINING, holder.plan, Grantor.ACCOUNT_HOLDER)
            else:
                require_available(holder.plan, training=True)
        return self._record(holder.id, Kind.TRAINING, given, was=holder.training, granted_by=by or holder.id)

    def refuse(self, account: str, flow: FlowId, *, given: bool, by: str = "") -> Change:
        """Record that nothing of a flow is to be taken of an account, or is again.

        Args:
            given: whether it is refused.
            by: another, who refuses it for them, as in `consent`.

        Raises:
            Problem: there is no such account.
        """
        holder = self.get(account)
        was = flow in holder.refuses
        return self._record(holder.id, Kind.refusing(flow), given, was=was, granted_by=by or holder.id)

    def decide_for_organization(
        self,
        organization: str,
        kind: Kind,
        *,
        given: bool,
        by: str,
        provider: Provider | None = Provider.ANTHROPIC,
    ) -> Change:
        """Record an admin's choice for an organization: the partner program, zero data retention, or that
        a flow is refused.

        Args:
            by: the name of the account that asks; `choices.require_admin` has them prove it.
            provider: where the organization's traffic reaches the model; None where nobody knows.

        Raises:
            Problem: the one who asks is no admin of that organization, its plan does not have it, or there
                is none of that name.
        """
        self.members(organization)
        person = self.get(by)
        is_admin = person.role is Role.ADMIN
        with self.telling_refusals(kind, given, person.id, of=organization):
            _require_member(person, organization)
            if kind is Kind.DPP:
                if given and provider is not Provider.ANTHROPIC:
                    raise Problem(
                        "the partner program is for the first-party API only, "
                        + (f"not for {provider}" if provider else "and nothing shows that it is reached"),
                        where="dpp",
                        fix="leave it off" if provider else "run the service with the Claude API: bailee up",
                    )
                grantor = Grantor.ORGANIZATION_ADMIN if is_admin else Grantor.ORGANIZATION_MEMBER
                require_grant(Consent.DPP, person.plan, grantor)
            elif not is_admin:
                what = "zero data retention" if kind is Kind.ZDR else "what is taken of its members"
                raise Problem(
                    f"only an organization admin can switch {what}",
                    where="--as",
                    fix=self._admin_fix(organization),
                )
        refused = {Kind.refusing(flow): flow in person.organization_refuses for flow in REFUSABLE}
        was = {Kind.DPP: person.dpp, Kind.ZDR: person.zdr, **refused}[kind]
        return self._record(organization, kind, given, was=was, granted_by=person.id)

    def limit_account(self, account: str, limit: Period, *, by: str = "") -> None:
        """Record the longest time an account holder lets records be held; `unlimited` is no wish.

        Args:
            by: another, who shortens it for them (`choices.choose_retention`), as in `consent`.

        Raises:
            Problem: there is no such account.
        """
        holder = self.get(account)
        table = tables.accounts
        wish = None if limit.is_unlimited else str(limit)
        with self.engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id == holder.id).values(retention=wish))
            self._tell_limit(connection, holder.id, limit, by or holder.id)

    def limit_organization(self, organization: str, limit: Period, *, by: str) -> None:
        """Record the longest time an organization lets records be held; `unlimited` is no wish.

        Raises:
            Problem: the one who asks is no admin of that organization, or there is none of that name.
        """
        self.members(organization)
        person = self.get(by)
        # Given is what loosens: whatever limit is asked for, a member may have no say in it.
        with self.telling_refusals("retention", True, person.id, of=organization):
            _require_member(person, organization)
            if person.role is not Role.ADMIN:
                raise Problem(
                    f"{by!r} is no admin of organization {organization!r}",
                    where="--as",
                    fix=self._admin_fix(organization),
                )
        table = tables.organizations
        wish = None if limit.is_unlimited else str(limit)
        with self.engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.name == organization).values(retention=wish))
            self._tell_limit(connection, organization, limit, person.id)

    def _admin_fix(self, organization: str) -> str:
        admins = [one.name for one in self.members(organization) if one.role is Role.ADMIN]
        if admins:
            return f"ask an admin of that organization: {', '.join(admins)}"
        return f"no admin is left; add one: bailee accounts add NAME --org {organization} --role admin"

    def members(self, organization: str) -> list[Account]:
        """Return the accounts of an organization, by name.

        Raises:
            Problem: there is no such organization.
        """
        found = self._read(tables.accounts.c.organization == organization)
        if not found:
            raise Problem(f"there is no organization {organization!r}", fix="see: bailee accounts list")
        return found

    def _record(self, subject: str, kind: Kind, given: bool, *, was: bool, granted_by: str) -> Change:
        change = Change(subject, kind, given, was, granted_by, self.now_ms())
        with self.engine.begin() as connection:
            connection.execute(
                sa.insert(tables.consents).values(
                    subject=subject,
                    kind=kind.value,
                    given=given,
                    granted_by=granted_by,
                    at_ms=change.at_ms,
                )
            )
            entry = ConsentChanged(
                id=secrets.token_hex(16),
                at_ms=change.at_ms,
                subject=self.name(subject),
                consent=kind.value,
                given=given,
                by=self.name(granted_by),
            )
            put(connection, tables.outbox, [entry])
        return change

    @contextlib.contextmanager
    def telling_refusals(self, what: str, given: bool, by: str, *, of: str) -> Iterator[None]:
        """Ledger every change that is refused within; see `tell_refusal`."""
        try:
            yield
        except Problem:
            self.tell_refusal(what, given, by, of=of)
            raise

    def tell_refusal(self, what: str, given: bool, by: str, *, of: str) -> None:
        """Ledger that a change is refused: the one place where that is done.

        Args:
            what: a `Kind`, or another word for what was asked for; see `ledger.entries.ConsentRefused`.
            by: who asked, as `ledger.pseudonyms` knows them.
            of: whose account, by its id, or which organization.
        """
        entry = ConsentRefused(
            id=secrets.token_hex(16),
            at_ms=self.now_ms(),
            consent=str(what),
            given=given,
            by=self.name(by),
            subject=self.name(of),
        )
        with self.engine.begin() as connection:
            put(connection, tables.outbox, [entry])

    def _tell_limit(self, connection: sa.Connection, subject: str, limit: Period, by: str) -> None:
        entry = LimitChanged(
            id=secrets.token_hex(16),
            at_ms=self.now_ms(),
            subject=self.name(subject),
            retention=str(limit),
            by=self.name(by),
        )
        put(connection, tables.outbox, [entry])

    def name(self, person: str, of: str = "") -> str:
        """Return what the ledger calls a person, or something of theirs; see `Pseudonyms.name`."""
        self._pseudonyms = self._pseudonyms or self._open_pseudonyms()
        return self._pseudonyms.name(person, of)

    def record_access(
        self, account: str, session: str | None, *, reader: str, reason: str, entry: ContentRead
    ) -> None:
        """Record that somebody reads content that is not theirs, with the entry for the ledger."""
        row = {
            "account": account,
            "session": session,
            "reader": reader,
            "purpose": entry.purpose,
            "reason": reason,
            "at_ms": entry.at_ms,
        }
        with self.engine.begin() as connection:
            connection.execute(sa.insert(tables.accesses), row)
            put(connection, tables.outbox, [entry])

    def list_accesses(self, account: str) -> list[Access]:
        """Return who but the account holder read content of an account, the latest first."""
        table = tables.accesses
        columns = [table.c[name] for name in Access.__struct_fields__]
        query = sa.select(*columns).where(table.c.account == account).order_by(table.c.number.desc())
        with self.engine.connect() as connection:
            return [Access(**row._mapping) for row in connection.execute(query)]

    def remove(self, account: str) -> str | None:
        """Remove an account with everything that is known of it; see `removal.remove_account`."""
        with self.engine.begin() as connection:
            gone = remove_account(connection, account)
        truncate_log(self.engine)
        return gone

    def close(self) -> None:
        """Close the databases."""
        self.engine.dispose()
        if self._pseudonyms is not None:
            self._pseudonyms.close()

    def _read(self, where: sa.ColumnElement[bool]) -> list[Account]:
        accounts, organizations = tables.accounts, tables.organizations
        query = (
            sa.select(accounts, organizations.c.retention.label("organization_retention"))
            .outerjoin(organizations)
            .where(where)
            .order_by(accounts.c.name)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
            consents = sa.select(tables.consents).order_by(tables.consents.c.number)
            if len(rows) <= _FEW:
                subjects = {row.id for row in rows} | {row.organization for row in rows}
                consents = consents.where(tables.consents.c.subject.in_(subjects - {None}))
            given = {(row.subject, row.kind): row.given for row in connection.execute(consents)}
        return [
            Account(
                id=row.id,
                name=row.name,
                plan=Plan(row.plan),
                organization=row.organization,
                role=Role(row.role) if row.role else None,
                retention=_period(row.retention),
                organization_retention=_period(row.organization_retention),
                training=given.get((row.id, Kind.TRAINING), False),
                dpp=given.get((row.organization, Kind.DPP), False),
                zdr=given.get((row.organization, Kind.ZDR), False),
                refuses=_refused(given, row.id),
                organization_refuses=_refused(given, row.organization),
                is_suspended=row.suspended_ms is not None,
            )
            for row in rows
        ]


@contextlib.contextmanager
def _refusing(problem: Problem) -> Iterator[None]:
    """Raise a problem where a row came to be between the look for it and its making."""
    try:
        yield
    except sqlalchemy.exc.IntegrityError:
        raise problem from None


def open_directory(home: Path, *, clock: Callable[[], float] = time.time) -> Directory:
    """Open, or make, the accounts of a home.

    Raises:
        Problem: see `database.engines.open_database`.
    """
    engine = open_database(home / FILE_NAME, tables.ACCOUNTS)
    return Directory(engine, partial(open_pseudonyms, home / "keystore", secrets.token_bytes), clock)


def _require_member(person: Account, organization: str) -> None:
    if person.organization != organization:
        raise Problem(
            f"{person.name!r} does not belong to organization {organization!r}",
            where="--as",
            fix="name an admin of that organization",
        )


def _refused(given: Mapping[tuple[str, str], bool], subject: str | None) -> tuple[FlowId, ...]:
    return tuple(flow for flow in REFUSABLE if given.get((subject or "", Kind.refusing(flow))))


def _period(text: str | None) -> Period | None:
    return None if text is None else Period.parse(text, where=FILE_NAME)
