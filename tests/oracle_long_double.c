/* oracle_long_double.c: the oracle in long double. */
#define NUMBER long double
#define ORACLE_NAME oracle_run_long_double
#include "oracle_tmpl.h"
