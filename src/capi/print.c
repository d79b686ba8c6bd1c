/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* What Rust cannot write: functions with a va_list. */
#include <stdarg.h>
#include <stdio.h>

typedef int (*print_fn)(int level, const char *format, va_list arguments);

enum { DEBUG = 2 };

int oxdp_capi_print(int level, const char *format, va_list arguments);
void oxdp_capi_say(print_fn print, int level, const char *text);

int oxdp_capi_print(int level, const char *format, va_list arguments)
{
	return level == DEBUG ? 0 : vfprintf(stderr, format, arguments);
}

static void say(print_fn print, int level, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	print(level, format, arguments);
	va_end(arguments);
}

void oxdp_capi_say(print_fn print, int level, const char *text)
{
	say(print, level, "%s", text);
}
