/*
 * json_output.h
 *		What output functions of types depend on, fixed.
 *
 * A value has one text, whatever the settings of the session that writes it:
 * times in ISO 8601 and UTC, intervals in style postgres, floats to the last
 * digit, bytea in hex, names qualified unless in pg_catalog.  What is left to
 * the session is lc_monetary: money has no scale without it.
 */
#ifndef FIN_JSON_OUTPUT_H
#define FIN_JSON_OUTPUT_H

#include "fmgr.h"

/* each includes what stands before it */
typedef enum FinOutputNeed
{
	FIN_OUTPUT_FREE,			/* nothing it depends on */
	FIN_OUTPUT_STYLES,			/* how times, floats and bytes are written */
	FIN_OUTPUT_NAMES			/* which names are in sight */
} FinOutputNeed;

/* what the type's output function, which *output is of, may depend on */
extern FinOutputNeed fin_output_need(Oid type, const FmgrInfo *output);

/*
 * Fixes it, where it is not as it should be.  Returns what to hand to
 * fin_output_restore(), which an abort does as well; 0: nothing to restore.
 */
extern int	fin_output_fix(FinOutputNeed need);
/* names are quoted where they must be, and only there */
extern int	fin_output_fix_quotes(void);
extern void fin_output_restore(int nest);

#endif							/* FIN_JSON_OUTPUT_H */
