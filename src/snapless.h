/*
 * snapless.h
 *		Waiting without a snapshot.
 *
 * A session that has a snapshot keeps VACUUM, in the whole database, from
 * removing what that snapshot may see.  A function is called with the snapshot
 * of the statement around it, for as long as it runs.  These let go of it
 * while the function waits and then take a new one, under READ COMMITTED, if
 * it is sure that nothing else in the statement reads with it.
 */
#ifndef FIN_SNAPLESS_H
#define FIN_SNAPLESS_H

/*
 * Lets go of the snapshot of the statement, or returns false and changes
 * nothing.  When it is true call fin_snapless_end() before anything that may
 * read; an ERROR in between needs nothing.
 */
extern bool fin_snapless_begin(void);
extern void fin_snapless_end(void);

/*
 * The same for a procedure that might COMMIT.  Such a one may be called without
 * a snapshot; the end gives it one, also when there was no begin.
 */
extern void fin_snapless_procedure_begin(void);
extern void fin_snapless_procedure_end(void);

#endif							/* FIN_SNAPLESS_H */
