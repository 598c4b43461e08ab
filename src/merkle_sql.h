/*
 * merkle_sql.h
 *		Hashes and proofs as SQL values: bytea, and arrays of it.
 */
#ifndef FIN_MERKLE_SQL_H
#define FIN_MERKLE_SQL_H

#include "postgres.h"

#include "merkle_proof.h"

extern Datum fin_merkle_datum(const FinHash *hash);
extern Datum fin_merkle_proof_datum(const FinProof *proof);

#endif							/* FIN_MERKLE_SQL_H */
