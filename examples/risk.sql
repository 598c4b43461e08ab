-- risk.sql: a day of those who watch over payments: rules are written, tried
-- out beside the live ones and over the history, and published; a colleague
-- approves a payment, a customer confirms one by a token, an alert is looked
-- into and reported, and payments are stopped for a moment.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/risk.sql risk
--
-- wallet.sql explains what is used here without a word.  Lines that begin with
-- --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('mara', 'EUR') AS mara,
	finance.create_account('noor', 'EUR') AS noor,
	finance.create_account('garage', 'EUR') AS garage,
	finance.create_account('casino', 'EUR') AS casino;
SELECT status FROM finance.transfer('bank', 'mara', 120000.00, type => 'deposit');
--> completed
SELECT status FROM finance.transfer('bank', 'noor', 5000.00, type => 'deposit');
--> completed

-- ------------------------------------------------------------------------
-- The first rules: a draft, published
-- ------------------------------------------------------------------------

-- Who acts is in each record of the audit log, and decides who may review.
SET finance.actor = 'ines';

-- Rules judge whoever pays, the bank too; these are for customers, whose
-- accounts are of the type liability.
SELECT finance.create_ruleset('start') AS start \gset
SELECT finance.add_rule('single payment', 'transfer_limit', 80000,
	account_type => 'liability', ruleset => :start);
SELECT finance.add_rule('large', 'large_value', account_type => 'liability',
	ruleset => :start);
SELECT finance.add_rule('stolen', 'blocklist', ruleset => :start);

-- What would they say?  explain_risk() moves nothing, and asks a draft, too.
-- The row without a rule is what they say together.
SELECT rule, hit, outcome, observed, threshold
FROM finance.explain_risk('mara', 'garage', 90000.00, ruleset => :start);
--> large | t | report | 90000.00 | 50000
--> single payment | t | reject | 90000.00 | 80000
--> stolen | f | reject | not on the list | blocklist
-->  | t | reject |  |

SELECT finance.publish_ruleset(:start);

-- It is live, and from now on it never changes.
DO $$
BEGIN
	PERFORM finance.remove_rule('large', ruleset => 1);
	ASSERT false, 'a published ruleset was changed';
EXCEPTION WHEN SQLSTATE 'LG109' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  ruleset 1 is not a draft

-- A rejection is an answer and no error: it is recorded, with its reason.
SELECT status, rule, from_balance FROM finance.transfer('mara', 'garage', 90000.00);
--> rejected | single payment | 120000.00
SELECT rule, outcome, observed, threshold FROM finance.risk_hit ORDER BY ordinal;
--> large | report | 90000.00 | 50000
--> single payment | reject | 90000.00 | 80000

-- Some ordinary payments, and a large one, which is only reported.
SELECT status FROM finance.transfer('noor', 'garage', 300.00);
--> completed
SELECT status FROM finance.transfer('noor', 'casino', 900.00);
--> completed
SELECT status FROM finance.transfer('mara', 'garage', 65000.00);
--> completed

-- ------------------------------------------------------------------------
-- Stricter ones, as a shadow first
-- ------------------------------------------------------------------------

-- What goes to a new payee is confirmed by the customer; what takes a large
-- part of the money is looked at by a second person.
SELECT finance.create_ruleset('second factor', copy_of => :start) AS stricter \gset
SELECT finance.add_rule('new payee', 'new_counterparty', 100,
	account_type => 'liability', ruleset => :stricter);
SELECT finance.add_rule('most of it', 'expression', account_type => 'liability',
	expression => 'amount > 1000 AND amount > available / 2',
	outcome => 'review', ruleset => :stricter);

-- A bad expression is refused when it is written.
DO $$
BEGIN
	PERFORM finance.check_expression('amount > 1000 AND random() > 0.5');
	ASSERT false, 'random() was allowed';
EXCEPTION WHEN SQLSTATE 'LG103' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  function random is not allowed in an expression

-- As a shadow it is asked and recorded with each transfer, and changes nothing.
SELECT finance.publish_ruleset(:stricter, 'shadow');
SELECT status FROM finance.transfer('noor', 'mara', 200.00);
--> completed
SELECT mode, outcome, rule FROM finance.risk_decision ORDER BY transfer_id DESC LIMIT 1;
--> shadow | challenge | new payee

-- And what would it have said today?  A row for each rule; newly_stopped are
-- those that were carried out, and would not have been at once.
SELECT rule, hits, misses, newly_stopped
FROM finance.backtest_ruleset(:stricter, now() - interval '1 hour')
WHERE rule IN ('new payee', 'most of it', 'single payment');
--> most of it | 2 | 3 | 1
--> new payee | 5 | 0 | 4
--> single payment | 1 | 4 | 0

SELECT t.amount, d.outcome_then, d.outcome_now, d.rule
FROM finance.backtest_differences(:stricter, now() - interval '1 hour') AS d
JOIN finance.transfer AS t ON t.id = d.transfer_id ORDER BY t.id;
--> 300.00 | pass | challenge | new payee
--> 900.00 | pass | challenge | new payee
--> 65000.00 | report | review | most of it
--> 200.00 | pass | challenge | new payee

-- Good enough: it takes the place of the first one.  Had it been a mistake,
-- publish_ruleset() of the first version would take it back.
SELECT finance.publish_ruleset(:stricter);
SELECT version, name, mode FROM finance.ruleset ORDER BY version;
--> 1 | start | retired
--> 2 | second factor | live

-- ------------------------------------------------------------------------
-- A challenge: the customer confirms
-- ------------------------------------------------------------------------

-- The application acts for its customer.  The money is held, and the token told
-- this once: it goes to her phone.
SET finance.actor = 'app: mara';
SELECT id AS rent, status, token FROM finance.transfer('mara', 'noor', 850.00,
	reference => 'rent') \gset
\echo :status
--> challenged
SELECT balance, held, available FROM finance.account WHERE code = 'mara';
--> 55200.00 | 850.00 | 54350.00

-- She mistypes it.  That is an answer, which is to be committed: it counts.
SELECT confirmed, attempts_left, status
FROM finance.confirm_challenge(:rent, translate(:'token', '0123456789abcdef', '123456789abcdef0'));
--> f | 4 | challenged
SELECT confirmed, status, amount, hold_id = :rent AS is_the_rent
FROM finance.confirm_challenge(:rent, :'token');
--> t | completed | 850.00 | t

-- ------------------------------------------------------------------------
-- A review: another person decides
-- ------------------------------------------------------------------------

SELECT id AS car, status FROM finance.transfer('mara', 'garage', 45000.00,
	reference => 'car') \gset
\echo :status
--> review

-- Who requested it cannot approve it.
SELECT set_config('example.car', :'car', false) AS car \gset
DO $$
BEGIN
	PERFORM finance.review_transfer(current_setting('example.car')::bigint, true);
	ASSERT false, 'maker was checker';
EXCEPTION WHEN SQLSTATE 'LG112' THEN
	RAISE NOTICE 'refused: %', SQLSTATE;
END $$;
--> NOTICE:  refused: LG112

-- Jonas sees what waits, asks, and approves.
SET finance.actor = 'jonas';
SELECT kind, from_account, to_account, amount, rules, requested_by, default_outcome, reference
FROM finance.review;
--> review | mara | garage | 45000.00 | {"most of it"} | app: mara | reject | car
SELECT status, amount FROM finance.review_transfer(:car, true, 'the garage has the contract');
--> completed | 45000.00

-- The decision can be judged again from what it recorded, and says the same.
SELECT r.outcome, r.same FROM finance.replay_decision(:car) AS r;
--> review | t

-- ------------------------------------------------------------------------
-- A customer who may do more, for a day
-- ------------------------------------------------------------------------

SELECT finance.set_rule_limit('new payee', 1000, 'furnishes a flat', account => 'noor',
	expires_at => now() + interval '1 day');
SELECT status FROM finance.transfer('noor', 'bank', 700.00, type => 'withdrawal');
--> completed

-- ------------------------------------------------------------------------
-- Alerts
-- ------------------------------------------------------------------------

-- One alert for each customer, rule, level and day, however many transfers.
SELECT level, account, rule, transfers FROM finance.alert ORDER BY alert_id;
--> critical | mara | single payment | 1
--> info | mara | large | 1
--> warning | mara | new payee | 1
--> warning | mara | most of it | 1

SELECT alert_id AS alert FROM finance.alert WHERE level = 'critical' \gset
SELECT finance.assign_alert(:alert, 'jonas');
SELECT finance.comment_alert(:alert, 'she cannot say where the money is from');
SELECT finance.close_alert(:alert, 'confirmed', 'reported to the authority');
SELECT action, actor, comment FROM finance.alert_comment ORDER BY comment_id;
--> assigned | jonas | jonas
--> comment | jonas | she cannot say where the money is from
--> confirmed | jonas | reported to the authority

-- What is large or suspicious, for the authority: in a file, as lines of JSON or
-- of CSV.
SELECT amount, outcome, rules, alert_status, comment FROM finance.aml_report ORDER BY transfer_id;
--> 90000.00 | reject | {"single payment",large} | confirmed | reported to the authority
--> 65000.00 | report | {large} | open |
SELECT count(*) AS lines FROM finance.export_aml(now() - interval '1 day', 'infinity', 'csv');
--> 3

-- ------------------------------------------------------------------------
-- The switch
-- ------------------------------------------------------------------------

-- Something is odd at the casino: no money from or to it, at once, everywhere.
SELECT paused, running, prepared
FROM finance.pause_transfers('account=casino', 'complaints of three customers');
--> t | 0 | 0
DO $$
BEGIN
	PERFORM finance.transfer('noor', 'casino', 10.00);
	ASSERT false, 'money moved';
EXCEPTION WHEN SQLSTATE 'LG104' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  transfers are paused
SELECT status FROM finance.transfer('noor', 'garage', 50.00);
--> completed

SELECT finance.resume_transfers('account=casino', 'explained') AS resumed;
--> t

-- ------------------------------------------------------------------------
-- In the end
-- ------------------------------------------------------------------------

-- All of it is in the audit log, with who did it.
SELECT operation, actor FROM finance.audit_record
WHERE operation IN ('publish_ruleset', 'review_transfer', 'confirm_challenge',
	'set_rule_limit', 'close_alert', 'pause_transfers', 'resume_transfers') ORDER BY id;
--> publish_ruleset | ines
--> publish_ruleset | ines
--> publish_ruleset | ines
--> confirm_challenge | app: mara
--> confirm_challenge | app: mara
--> review_transfer | jonas
--> set_rule_limit | jonas
--> close_alert | jonas
--> pause_transfers | jonas
--> resume_transfers | jonas

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
