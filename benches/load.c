/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* load ROUNDS LIBRARY…: how long it takes to load each library and find a function in it, in a fresh process each time and in
 * turns, and the part of it that is the library's own: libbpf is there before. Prints the medians, in microseconds.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIBRARIES 8

static long nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* In a child: a library is loaded once in a process. */
static long load(const char *library, const char *before)
{
	int ends[2], status;
	long start, took = -1;
	void *handle;

	if (pipe(ends))
		return -1;
	if (!fork()) {
		if (before && !dlopen(before, RTLD_NOW))
			_exit(1);
		start = nanoseconds();
		handle = dlopen(library, RTLD_NOW);
		if (!handle || !dlsym(handle, "xdp_program__attach"))
			_exit(1);
		took = nanoseconds() - start;
		_exit(write(ends[1], &took, sizeof(took)) != sizeof(took));
	}
	close(ends[1]);
	if (read(ends[0], &took, sizeof(took)) != sizeof(took))
		took = -1;
	close(ends[0]);
	wait(&status);
	return took;
}

static int compare(const void *left, const void *right)
{
	const long a = *(const long *)left, b = *(const long *)right;

	return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
	static const char *const befores[] = { NULL, "libbpf.so.1" };
	int rounds = argc > 2 ? atoi(argv[1]) : 0, round, which, library;
	long *times;

	if (rounds < 1 || argc > 2 + LIBRARIES) {
		fprintf(stderr, "usage: load ROUNDS LIBRARY...\n");
		return 2;
	}
	times = calloc((size_t)rounds * 2 * LIBRARIES, sizeof(*times));
	if (!times)
		return 1;
	for (round = 0; round < rounds; round++) {
		for (library = 2; library < argc; library++) {
			for (which = 0; which < 2; which++) {
				long took = load(argv[library], befores[which]);

				if (took < 0) {
					fprintf(stderr, "load: %s cannot be loaded\n", argv[library]);
					free(times);
					return 1;
				}
				times[((library - 2) * 2 + which) * rounds + round] = took;
			}
		}
	}
	for (library = 0; library < argc - 2; library++) {
		for (which = 0; which < 2; which++)
			qsort(times + (library * 2 + which) * rounds, rounds, sizeof(*times), compare);
		printf("%s: %.0f, with libbpf there %.0f\n", argv[library + 2],
		       times[library * 2 * rounds + rounds / 2] / 1e3,
		       times[(library * 2 + 1) * rounds + rounds / 2] / 1e3);
	}
	free(times);
	return 0;
}
