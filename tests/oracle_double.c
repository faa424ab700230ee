/* oracle_double.c: the oracle in double. */
#define NUMBER double
#define ORACLE_NAME oracle_run_double
#include "oracle_tmpl.h"
