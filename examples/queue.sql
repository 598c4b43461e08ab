-- queue.sql: work to be done later, by workers that may fail: an order is paid
-- in the same transaction that asks for its parcel; a worker ships it, tries
-- again what fails, and puts aside what fails for ever.  Each parcel once.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/queue.sql queue
--
-- wallet.sql explains what is used here without a word.  Lines that begin with
-- --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('hana', 'EUR') AS hana,
	finance.create_account('shop', 'EUR', 'income') AS shop;
SELECT status FROM finance.transfer('bank', 'hana', 100.00, type => 'deposit');
--> completed

-- ------------------------------------------------------------------------
-- The queue, and the table that the worker writes
-- ------------------------------------------------------------------------

-- What was tried three times goes to 'failed'.  Between two tries pass two
-- seconds, then four; a worker that dies is noticed after 30, its vt.
SELECT finance.create_queue('failed');
SELECT finance.create_queue('parcels', max_deliveries => 3,
	dead_letter_queue => 'failed', backoff_ms => 2000);

-- The application asks for parcels under a topic and need not know the queue.
SELECT finance.bind_topic('order.paid', 'parcels');

CREATE TABLE parcel (
	order_no	bigint PRIMARY KEY,
	address		text NOT NULL
);

-- ------------------------------------------------------------------------
-- The message commits with the money
-- ------------------------------------------------------------------------

-- Who has no money gets no parcel: the error takes the message back, too.
DO $$
BEGIN
	PERFORM finance.publish('order.paid', '{"order": 1, "address": "Bergen"}');
	PERFORM finance.transfer('hana', 'shop', 500.00, type => 'payment');
	ASSERT false, 'Hana has spent more than she had';
EXCEPTION WHEN SQLSTATE 'LG001' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  insufficient funds in account "hana"

SELECT queue_length FROM finance.metrics('parcels');
--> 0

-- An order is a transaction: payment and message.  The ordering key lets the
-- parcels of one customer leave one after another.
BEGIN;
SELECT status FROM finance.transfer('hana', 'shop', 20.00, type => 'payment',
	idempotency_key => 'order/2');
--> completed
SELECT finance.publish('order.paid', '{"order": 2, "address": "Oslo"}',
	ordering_key => 'hana', dedup_id => 'order/2') AS queues;
--> 1
COMMIT;

-- The answer got lost, and the application does all of it again: the key
-- keeps the money, and the dedup id the message, from being there twice.
BEGIN;
SELECT status, replayed FROM finance.transfer('hana', 'shop', 20.00,
	type => 'payment', idempotency_key => 'order/2');
--> completed | t
SELECT finance.publish('order.paid', '{"order": 2, "address": "Oslo"}',
	ordering_key => 'hana', dedup_id => 'order/2') AS queues;
COMMIT;

-- Another order of hers, without an address: it will fail.  And one of Ivo,
-- who is in a hurry.
SELECT finance.publish('order.paid', '{"order": 3}', ordering_key => 'hana') AS queues;
SELECT finance.publish('order.paid', '{"order": 4, "address": "Turku"}',
	ordering_key => 'ivo', priority => 5) AS queues;

SELECT queue_length FROM finance.metrics('parcels');
--> 3

-- ------------------------------------------------------------------------
-- A worker
-- ------------------------------------------------------------------------

-- The loop reads in a transaction of its own, which counts the delivery and
-- commits at once.  Then each message is worked on in its own transaction,
-- which also acknowledges it: both commit, or neither.  read_ct says which
-- delivery that is: if it took so long that another worker has the message by
-- now, delete() fails with LG305, and what was done is taken back.  What goes
-- wrong is told to nack(), in a transaction of its own again.
--
-- An application does the same with its driver.  An hour of vt is for this
-- example, so that nothing comes back while somebody reads along.
CREATE PROCEDURE work(batches integer)
LANGUAGE plpgsql AS $$
DECLARE
	messages	finance.message_record[];
	message		finance.message_record;
	problem		text;
BEGIN
	FOR i IN 1 .. batches LOOP
		messages := ARRAY(SELECT m FROM finance.read('parcels', vt => 3600, qty => 10) AS m);
		COMMIT;
		FOREACH message IN ARRAY messages LOOP
			BEGIN
				problem := NULL;
				INSERT INTO parcel (order_no, address)
				VALUES ((message.message->>'order')::bigint, message.message->>'address');
				PERFORM finance.delete('parcels', message.msg_id, message.read_ct);
			EXCEPTION WHEN OTHERS THEN
				problem := SQLSTATE;
			END;
			COMMIT;
			-- the next try at once, as nobody wants to wait for an example;
			-- without a delay it is the queue's back-off
			IF problem IS NOT NULL THEN
				PERFORM finance.nack('parcels', message.msg_id, delay => 0,
					read_ct => message.read_ct, reason => problem);
				COMMIT;
			END IF;
			RAISE NOTICE 'order %, delivery %: %', message.message->>'order',
				message.read_ct, coalesce('failed with ' || problem, 'shipped');
		END LOOP;
	END LOOP;
END $$;

-- First Ivo's, by its priority, and Hana's first.  Her second comes when the
-- first is gone: that is one batch later.
CALL work(1);
--> NOTICE:  order 4, delivery 1: shipped
--> NOTICE:  order 2, delivery 1: shipped

-- It fails, three times, and that is enough.
CALL work(4);
--> NOTICE:  order 3, delivery 1: failed with 23502
--> NOTICE:  order 3, delivery 2: failed with 23502
--> NOTICE:  order 3, delivery 3: failed with 23502

SELECT order_no, address FROM parcel ORDER BY order_no;
--> 2 | Oslo
--> 4 | Turku

-- ------------------------------------------------------------------------
-- Dead letters
-- ------------------------------------------------------------------------

-- The header x-death says why it is here and where it comes from.
SELECT message, headers->'x-death'->>'reason' AS reason,
	headers->'x-death'->>'queue' AS queue, headers->'x-death'->>'read_ct' AS tries
FROM finance.read('failed', vt => 0);
--> {"order": 3} | 23502 | parcels | 3

-- Somebody finds the reason (here: no address may be null), mends it, and lets
-- all dead letters try again.  They begin anew, with no deliveries counted.
ALTER TABLE parcel ALTER address DROP NOT NULL;
SELECT finance.redrive('failed');
--> 1
CALL work(1);
--> NOTICE:  order 3, delivery 1: shipped

-- ------------------------------------------------------------------------
-- A worker that was too slow
-- ------------------------------------------------------------------------

SELECT finance.send('parcels', '{"order": 5, "address": "Vaasa"}') AS id \gset

-- It reads, and its time is over: a vt of 0 is over at once.  So somebody else
-- reads the message, and has it now.
SELECT read_ct FROM finance.read('parcels', vt => 0);
--> 1
SELECT read_ct FROM finance.read('parcels', vt => 3600);
--> 2

-- The slow one must not acknowledge what is being worked on by another.
SELECT set_config('example.id', :'id', false) AS id \gset
DO $$
BEGIN
	PERFORM finance.delete('parcels', current_setting('example.id')::bigint, read_ct => 1);
	ASSERT false, 'somebody else''s message is gone';
EXCEPTION WHEN SQLSTATE 'LG305' THEN
	RAISE NOTICE 'too late: %', SQLSTATE;
END $$;
--> NOTICE:  too late: LG305

SELECT finance.delete('parcels', :id, read_ct => 2);
--> t

-- ------------------------------------------------------------------------
-- A consumer in another database
-- ------------------------------------------------------------------------

-- Where the work is written to another database, delete() cannot commit with
-- it.  There the message is noted in the transaction of the work, in that
-- database; whoever gets it a second time is told so, and only acknowledges.
-- message_id is the same in each delivery and in the copies of all queues.
SELECT finance.send('parcels', '{"order": 6, "address": "Narvik"}') AS id \gset
SELECT message_id FROM finance.read('parcels', vt => 0) \gset
SELECT finance.process_once('customs', :message_id) AS first_time;
--> t
SELECT message_id FROM finance.read('parcels', vt => 3600) \gset
SELECT finance.process_once('customs', :message_id) AS first_time;
--> f
SELECT finance.archive('parcels', :id) AS archived;
--> t

-- ------------------------------------------------------------------------
-- The history of all parcels: a log
-- ------------------------------------------------------------------------

-- A log keeps its messages; each group reads all of them at its own pace, and
-- again if it likes.
SELECT finance.create_log_queue('history', retention => '1 year');
SELECT finance.create_consumer_group('history', 'statistics');
SELECT count(*) FROM finance.send_batch('history',
	ARRAY['{"shipped": 2}', '{"shipped": 4}', '{"shipped": 3}']::jsonb[]);
--> 3

-- Reading leaves the group where it is; commit_group() moves it, in the
-- transaction of what came of the messages.
BEGIN;
SELECT max(position) AS read_up_to, count(*) AS messages
FROM finance.read_group('history', 'statistics', qty => 2) \gset
\echo :messages
--> 2
SELECT finance.commit_group('history', 'statistics', :'read_up_to');
--> t
COMMIT;
SELECT message FROM finance.read_group('history', 'statistics');
--> {"shipped": 3}

-- Once more from the beginning.
SELECT finance.seek_group('history', 'statistics', to_position => 'beginning') AS seek \gset
SELECT count(*) FROM finance.read_group('history', 'statistics');
--> 3

-- ------------------------------------------------------------------------
-- In the end
-- ------------------------------------------------------------------------

SELECT queue_name, queue_length FROM finance.metrics_all() ORDER BY queue_name;
--> failed | 0
--> history | 3
--> parcels | 0

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
