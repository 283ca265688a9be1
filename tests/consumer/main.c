#include <kvlane/kvlane.h>

#include <stdio.h>

int main(void) {
    const char *isa;
    if (kvl_isa_in_force(&isa) != KVL_OK) {
        fprintf(stderr, "%s\n", kvl_last_error());
        return 1;
    }
    printf("kvlane %s on %s\n", kvl_version(), isa);
    return 0;
}
