/*
 * risk_explain.c
 *		Asking the rules without moving money, and asking them again.
 *
 * Owns nothing.  explain_risk() and evaluate_risk() judge under the accounts'
 * locks, as a transfer would, but in a subtransaction that is rolled back, so
 * no lock outlives the call and no total is written.  replay_decision() judges
 * from what a decision recorded: it reads nothing else.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "account.h"
#include "argument.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "risk_parts.h"
#include "type.h"

/* ids of measures that a draft asks for and nobody counts yet */
#define DRAFT_MEASURE_ID	1000000000

/* the arguments of explain_risk() and evaluate_risk() */
typedef struct Question
{
	char	   *codes[2];
	Numeric		amount;
	char	   *currency;
	char	   *type;
	char	   *reference;
	Jsonb	   *metadata;
	bool		is_hold;
	int32		version;		/* 0: those in force */
} Question;

/* one row of finance.risk_answer */
typedef struct Answer
{
	struct Answer *next;
	int32		version;
	const char *mode;
	const char *rule;			/* NULL: the ruleset as a whole */
	const char *kind;
	bool		hit;
	FinRiskOutcome outcome;
	int			score;
	const char *observed;
	const char *threshold;
	const char *window;
} Answer;

static FinQuery select_mode =
{
	.sql = "SELECT mode FROM finance.ruleset"
	" WHERE tenant_id = $1 AND version = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery select_decision =
{
	.sql = "SELECT version, outcome, score, hits, inputs"
	" FROM finance.risk_decision WHERE tenant_id = $1 AND transfer_id = $2"
	" AND CASE WHEN $3 = 0 THEN mode = 'live' ELSE version = $3 END",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT4OID},
	.expect = SPI_OK_SELECT,
};

/* ------------------------------------------------------------------------
 * the question
 * ------------------------------------------------------------------------ */

static void
refuse_version(int32 version)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_RULESET),
			errmsg("ruleset %d does not exist", version));
}

/* 0: null */
static int32
version_argument(FunctionCallInfo fcinfo, int argument)
{
	if (PG_ARGISNULL(argument))
		return 0;
	if (PG_GETARG_INT32(argument) <= 0)
		refuse_version(PG_GETARG_INT32(argument));
	return PG_GETARG_INT32(argument);
}

static void
take_question(FunctionCallInfo fcinfo, Question *question)
{
	question->codes[0] = fin_argument_text(fcinfo, 0, "from_account",
										   FIN_CODE_LENGTH_MAX);
	question->codes[1] = fin_argument_text(fcinfo, 1, "to_account",
										   FIN_CODE_LENGTH_MAX);
	question->amount = fin_argument_numeric(fcinfo, 2, "amount", true);
	question->currency = fin_argument_text_or_null(fcinfo, 3, "currency",
												   FIN_CURRENCY_LENGTH_MAX);
	question->type = fin_argument_text(fcinfo, 4, "type", FIN_TYPE_LENGTH_MAX);
	question->reference = fin_argument_text_or_null(fcinfo, 5, "reference",
													FIN_REFERENCE_LENGTH_MAX);
	question->metadata = fin_argument_metadata(fcinfo, 6);
	question->is_hold = !PG_ARGISNULL(7) && PG_GETARG_BOOL(7);
}

static void
refuse_accounts(const Question *question, const FinAccount *from,
				const FinAccount *to)
{
	if (from == to)
		ereport(ERROR,
				errcode(ERRCODE_FIN_SAME_ACCOUNT),
				errmsg("account \"%s\" cannot pay itself", from->code));
	if (strcmp(from->currency, to->currency) != 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_CURRENCY_MISMATCH),
				errmsg("account \"%s\" is in %s, \"%s\" in %s", from->code,
					   from->currency, to->code, to->currency));
	if (question->currency != NULL &&
		strcmp(question->currency, from->currency) != 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_CURRENCY_MISMATCH),
				errmsg("account \"%s\" is in %s, not in %s", from->code,
					   from->currency, question->currency));
}

static void
fill_movement(const FinContext *context, const Question *question,
			  FinMovement *movement)
{
	int			which[2];
	FinAccount *accounts = fin_account_lock_all(context,
												(const char *const *) question->codes,
												2, which);
	TimeADT		time;
	FinFault   *fault;

	memset(movement, 0, sizeof(FinMovement));
	movement->action = question->is_hold ? FIN_HOLD : FIN_TRANSFER;
	movement->from = &accounts[which[0]];
	movement->to = &accounts[which[1]];
	refuse_accounts(question, movement->from, movement->to);
	fault = fin_type_fault(context->tenant_id, question->type,
						   movement->from->type, movement->to->type);
	if (fault != NULL)
		fin_fault_raise(fault);
	movement->amount = fin_amount_from_caller(question->amount,
											  movement->from->scale,
											  movement->from->currency,
											  "amount");
	movement->now = fin_ident_now();
	fin_context_local(context->tenant_id, movement->now,
					  &movement->business_date, &time);
}

static int
compare_measures(const void *a, const void *b)
{
	int32		x = ((const FinMeasure *) a)->measure_id;
	int32		y = ((const FinMeasure *) b)->measure_id;

	return x < y ? -1 : x > y;
}

/* a meter has its measures in the order of their ids */
static FinMeter *
open_meter(int32 tenant_id, const RiskBook *book)
{
	Size		size = sizeof(FinMeasure) * book->nmeasures;
	FinMeasure *measures = palloc(size);

	memcpy(measures, book->measures, size);
	qsort(measures, book->nmeasures, sizeof(FinMeasure), compare_measures);
	return fin_meter_open_reading(tenant_id, measures, book->nmeasures);
}

static void
fill_subject(const FinContext *context, const Question *question,
			 RiskBook *book, const FinMovement *movement,
			 FinRiskSubject *subject)
{
	FinMeterEvent *event = &subject->event;

	memset(subject, 0, sizeof(FinRiskSubject));
	subject->tenant_id = context->tenant_id;
	subject->book = book;
	subject->movement = movement;
	subject->type = question->type;
	subject->reference = question->reference;
	subject->metadata = question->metadata;
	event->id = fin_ident_next(movement->from->last_transfer_id);
	event->from_id = movement->from->account_id;
	event->to_id = movement->to->account_id;
	event->scale = movement->from->scale;
	event->amount = movement->amount;
	event->type = question->type;
	event->currency = movement->from->currency;
	event->moment.at = movement->now;
	fin_context_local(context->tenant_id, movement->now, &event->moment.date,
					  &event->moment.time);
	fin_meter_take_texts(event, question->metadata);
	if (book->nmeasures > 0)
		subject->meter = open_meter(context->tenant_id, book);
}

/* those in force, or the one asked for */
static RiskBook *
find_book(const FinContext *context, int32 version)
{
	RiskBook   *book;

	if (version == 0)
		return fin_risk_hold(context->tenant_id);
	book = fin_risk_compile(context->tenant_id, version, CurrentMemoryContext);
	if (book == NULL)
		refuse_version(version);
	/* what nobody counts is summed up from the history */
	if (!fin_risk_name_measures(book))
	{
		for (int i = 0; i < book->nmeasures; i++)
		{
			if (book->measures[i].measure_id == 0)
				book->measures[i].measure_id = DRAFT_MEASURE_ID + i;
		}
	}
	return book;
}

/* ------------------------------------------------------------------------
 * the answers
 * ------------------------------------------------------------------------ */

static char *
copy_text(const char *text)
{
	return text == NULL ? NULL : pstrdup(text);
}

static Answer *
add_answer(Answer ***end, const RiskRuleset *ruleset, const char *mode)
{
	Answer	   *answer = palloc0(sizeof(Answer));

	answer->version = ruleset->version;
	answer->mode = mode;
	**end = answer;
	*end = &answer->next;
	return answer;
}

static void
answer_rule(const RiskRule *rule, const RiskAnswer *said, Answer *answer)
{
	answer->rule = pstrdup(rule->name);
	answer->kind = fin_rule_kinds[rule->kind].name;
	answer->hit = said->hit;
	answer->outcome = said->outcome;
	answer->score = rule->score;
	answer->observed = said->applies ? copy_text(said->observed) :
		"does not apply";
	answer->threshold = copy_text(said->threshold);
	answer->window = copy_text(said->window);
}

/*
 * Allocates in 'memory', which is switched to for the answers alone: a query
 * leaves SPI's own context behind, whatever was current before.
 */
static Answer *
answer_all(RiskBook *book, RiskFacts *facts, const char *mode,
		   MemoryContext memory)
{
	Answer	   *answers = NULL;
	Answer	  **end = &answers;

	for (int i = 0; i < book->nrulesets; i++)
	{
		RiskRuleset *ruleset = &book->rulesets[i];
		const char *its_mode = mode != NULL ? mode :
			ruleset->is_live ? "live" : "shadow";
		FinRiskJudgement judgement;
		Answer	   *answer;
		MemoryContext old;

		for (int j = 0; j < ruleset->nrules; j++)
		{
			RiskAnswer	said = {.wants_words = true};

			fin_risk_ask(&ruleset->rules[j], facts, &said);
			old = MemoryContextSwitchTo(memory);
			answer_rule(&ruleset->rules[j], &said,
						add_answer(&end, ruleset, its_mode));
			MemoryContextSwitchTo(old);
		}
		fin_risk_evaluate(ruleset, facts, &judgement);
		old = MemoryContextSwitchTo(memory);
		answer = add_answer(&end, ruleset, its_mode);
		MemoryContextSwitchTo(old);
		answer->hit = judgement.nhits > 0;
		answer->outcome = judgement.outcome;
		answer->score = judgement.score;
	}
	return answers;
}

static char *
mode_of(const FinContext *context, int32 version)
{
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	Int32GetDatum(version)};

	if (version == 0 || fin_query_run(&select_mode, values, NULL, 1) == 0)
		return NULL;
	return fin_query_text(0, 1);
}

/* judges inside the subtransaction; answers are allocated in 'memory' */
static Answer *
judge(const FinContext *context, const Question *question,
	  MemoryContext memory)
{
	FinQueryScope scope;
	FinMovement movement;
	FinRiskSubject subject;
	RiskFacts	facts;
	RiskBook   *book;
	Answer	   *answers = NULL;

	fin_query_begin(&scope);
	fill_movement(context, question, &movement);
	book = find_book(context, question->version);
	if (book != NULL)
	{
		char	   *mode = mode_of(context, question->version);

		if (mode != NULL)
			mode = MemoryContextStrdup(memory, mode);
		fill_subject(context, question, book, &movement, &subject);
		fin_risk_gather(book, &subject, &facts);
		answers = answer_all(book, &facts, mode, memory);
	}
	fin_query_end(&scope);
	return answers;
}

static void
undo(MemoryContext memory, ResourceOwner owner)
{
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
}

/* everything that is locked or written meanwhile is undone */
static Answer *
ask(const Question *question)
{
	const FinContext *context = fin_context_hold();
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Answer	   *answers = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		answers = judge(context, question, memory);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		FlushErrorState();
		undo(memory, owner);
		ReThrowError(error);
	}
	PG_END_TRY();
	undo(memory, owner);
	return answers;
}

static void
put_text(const char *text, Datum *value, bool *isnull)
{
	*isnull = text == NULL;
	*value = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static void
put_answer(ReturnSetInfo *result, const Answer *answer)
{
	Datum		values[10];
	bool		nulls[10] = {false};

	values[0] = Int32GetDatum(answer->version);
	put_text(answer->mode, &values[1], &nulls[1]);
	put_text(answer->rule, &values[2], &nulls[2]);
	put_text(answer->kind, &values[3], &nulls[3]);
	values[4] = BoolGetDatum(answer->hit);
	put_text(fin_risk_outcome_name(answer->outcome), &values[5], &nulls[5]);
	values[6] = Int32GetDatum(answer->score);
	put_text(answer->observed, &values[7], &nulls[7]);
	put_text(answer->threshold, &values[8], &nulls[8]);
	put_text(answer->window, &values[9], &nulls[9]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(finance_explain_risk);

/*
 * finance.explain_risk(from_account, to_account, amount, currency, type,
 *						reference, metadata, is_hold, ruleset)
 *		returns setof finance.risk_answer
 *
 * What each rule would say of such a transfer now, hit or not, in the order of
 * the rules' names; after those of a ruleset a row with rule null: its outcome
 * and score.  ruleset: this version, a draft too; null: the live one and the
 * shadows.  Funds, statuses and limits of the accounts are not looked at.
 *
 * Errors: 22004, 22023, 22003 bad arguments, LG002 unknown account, LG003
 * another currency, LG008 the same account, LG017 a type unknown or not for
 * these accounts, LG108 unknown ruleset.  Locks: both
 * accounts, only while it runs.
 */
Datum
finance_explain_risk(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Question	question;

	take_question(fcinfo, &question);
	question.version = version_argument(fcinfo, 8);
	InitMaterializedSRF(fcinfo, 0);
	for (Answer *answer = ask(&question); answer != NULL; answer = answer->next)
		put_answer(result, answer);
	return (Datum) 0;
}

/* the first rule that asked for the outcome, or NULL */
static const char *
deciding_rule(const Answer *answers, const Answer *whole)
{
	for (; answers != whole; answers = answers->next)
	{
		if (answers->hit && answers->outcome == whole->outcome &&
			whole->outcome != FIN_RISK_PASS)
			return answers->rule;
	}
	return NULL;
}

PG_FUNCTION_INFO_V1(finance_evaluate_risk);

/*
 * finance.evaluate_risk(from_account, to_account, amount, currency, type,
 *						 reference, metadata, is_hold)
 *		returns (outcome, score, rule, version)
 *
 * What the live ruleset would say of such a transfer now; pass, with version
 * null, when there is none.  Errors and locks: as explain_risk().
 */
Datum
finance_evaluate_risk(PG_FUNCTION_ARGS)
{
	Question	question;
	Answer	   *answers;
	const Answer *whole;
	TupleDesc	desc;
	Datum		values[4] = {0};
	bool		nulls[4] = {false, false, true, true};

	take_question(fcinfo, &question);
	question.version = 0;
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "evaluate_risk() must return a row");
	answers = ask(&question);
	whole = answers;
	while (whole != NULL && whole->rule != NULL)
		whole = whole->next;
	if (whole == NULL || strcmp(whole->mode, "live") != 0)
	{
		values[0] = CStringGetTextDatum(fin_risk_outcome_name(FIN_RISK_PASS));
		values[1] = Int32GetDatum(0);
	}
	else
	{
		values[0] = CStringGetTextDatum(fin_risk_outcome_name(whole->outcome));
		values[1] = Int32GetDatum(whole->score);
		put_text(deciding_rule(answers, whole), &values[2], &nulls[2]);
		values[3] = Int32GetDatum(whole->version);
		nulls[3] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

/* ------------------------------------------------------------------------
 * replay
 * ------------------------------------------------------------------------ */

static bool
is_same_jsonb(Jsonb *a, Jsonb *b)
{
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

static bool
is_error(const FinRiskHit *hit, const char *observed)
{
	return strcmp(hit->kind, fin_rule_kinds[FIN_RULE_EXPRESSION].name) == 0 &&
		strncmp(observed, RISK_ERROR_PREFIX, strlen(RISK_ERROR_PREFIX)) == 0;
}

/*
 * The words of an error depend on lc_messages and on the server's version.  So
 * of an expression that failed then and fails again those recorded are kept.
 */
static void
keep_error_words(FinRiskJudgement *judgement, Jsonb *recorded)
{
	for (int i = 0; i < judgement->nhits; i++)
	{
		FinRiskHit *hit = &judgement->hits[i];
		JsonbValue *element = getIthJsonbValueFromContainer(&recorded->root, i);
		JsonbValue *observed;
		char	   *words;

		if (element == NULL || element->type != jbvBinary ||
			!is_error(hit, hit->observed))
			continue;
		observed = getKeyJsonValueFromContainer(element->val.binary.data,
												"observed", strlen("observed"),
												NULL);
		if (observed == NULL || observed->type != jbvString)
			continue;
		words = pnstrdup(observed->val.string.val, observed->val.string.len);
		if (is_error(hit, words))
			hit->observed = words;
	}
}

/* the recorded decision in the last result, judged again: the OUT columns */
static void
judge_again(int32 tenant_id, MemoryContext memory, Datum *values)
{
	bool		isnull;
	int32		version = DatumGetInt32(fin_query_datum(0, 1, &isnull));
	char	   *outcome = fin_query_text(0, 2);
	int			score = DatumGetInt32(fin_query_datum(0, 3, &isnull));
	Jsonb	   *hits = DatumGetJsonbPCopy(fin_query_datum(0, 4, &isnull));
	Jsonb	   *inputs = DatumGetJsonbPCopy(fin_query_datum(0, 5, &isnull));
	RiskBook   *book = fin_risk_compile(tenant_id, version,
										CurrentMemoryContext);
	RiskFacts	facts;
	FinRiskJudgement judgement;
	Jsonb	   *again;
	MemoryContext old;

	if (book == NULL)
		elog(ERROR, "ruleset %d of a decision does not exist", version);
	fin_risk_clear(book, &facts);
	fin_risk_read_inputs(book, inputs, &facts);
	fin_risk_evaluate(&book->rulesets[0], &facts, &judgement);
	keep_error_words(&judgement, hits);
	again = fin_risk_hits(&judgement);
	old = MemoryContextSwitchTo(memory);
	values[0] = BoolGetDatum(strcmp(outcome, fin_risk_outcome_name(judgement.outcome)) == 0 &&
							 score == judgement.score &&
							 is_same_jsonb(hits, again));
	values[1] = CStringGetTextDatum(fin_risk_outcome_name(judgement.outcome));
	values[2] = Int32GetDatum(judgement.score);
	values[3] = datumCopy(JsonbPGetDatum(again), false, -1);
	values[4] = CStringGetTextDatum(outcome);
	values[5] = datumCopy(JsonbPGetDatum(hits), false, -1);
	MemoryContextSwitchTo(old);
}

PG_FUNCTION_INFO_V1(finance_replay_decision);

/*
 * finance.replay_decision(transfer_id, version)
 *		returns (same, outcome, score, hits, recorded_outcome, recorded_hits)
 *
 * Judges again by the ruleset of the decision and by what it looked at, as
 * recorded; version null: the decision of the live ruleset.  Of an expression
 * that fails as it did then, the words of the error count for nothing.
 * Errors: 22004, LG012 there is no such decision, LG108 no such ruleset.
 */
Datum
finance_replay_decision(PG_FUNCTION_ARGS)
{
	const FinContext *context = fin_context();
	TupleDesc	desc;
	Datum		arguments[3];
	Datum		values[6];
	bool		nulls[6] = {false};
	FinQueryScope scope;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("transfer_id must not be null"));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "replay_decision() must return a row");
	arguments[0] = Int32GetDatum(context->tenant_id);
	arguments[1] = PG_GETARG_DATUM(0);
	arguments[2] = Int32GetDatum(version_argument(fcinfo, 1));
	fin_query_begin(&scope);
	if (fin_query_run(&select_decision, arguments, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_TRANSFER),
				errmsg("there is no decision on transfer " INT64_FORMAT,
					   PG_GETARG_INT64(0)),
				errdetail("A transfer that no rule hit has none."));
	judge_again(context->tenant_id, scope.caller, values);
	fin_query_end(&scope);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
