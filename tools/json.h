/* json.h: the little JSON that the tools write. */
#ifndef DLATTN_TOOLS_JSON_H
#define DLATTN_TOOLS_JSON_H

#include <stdio.h>

void json_string(FILE *to, const char *text); /* with quotes and escapes */
void json_number(FILE *to, double value);     /* null where JSON has no number */

#endif
