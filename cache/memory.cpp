#include "memory.hpp"

#include <algorithm>
#include <cstdlib>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define KVLANE_HAS_MMAP 1
#endif

namespace kvlane {
namespace {

std::byte *align_up(void *p, int64_t alignment) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    const auto mask = static_cast<uintptr_t>(alignment) - 1;
    return reinterpret_cast<std::byte *>((address + mask) & ~mask);
}

}  // namespace

#if KVLANE_HAS_MMAP

int64_t page_bytes() { return sysconf(_SC_PAGESIZE); }

bool Memory::reserve(int64_t bytes) {
#if !defined(MAP_NORESERVE)
    constexpr int MAP_NORESERVE = 0;
#endif
    const int64_t reserved = bytes + huge_page_bytes;
    void *p = mmap(nullptr, static_cast<size_t>(reserved), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return false;
    }
#if defined(MADV_NOHUGEPAGE)
    (void)madvise(p, static_cast<size_t>(reserved), MADV_NOHUGEPAGE);  // until they are asked for
#endif
    reservation_ = p;
    reserved_bytes_ = reserved;
    data_ = align_up(p, huge_page_bytes);
    return true;
}

void Memory::ask_for_huge_pages(int64_t offset, int64_t bytes) const {
#if defined(MADV_HUGEPAGE)
    // Whole pages inside the range; the range of a layer starts and ends anywhere.
    std::byte *first = align_up(data_ + offset, page_bytes());
    std::byte *end = data_ + offset + bytes;
    if (first < end) {
        (void)madvise(first, static_cast<size_t>(end - first), MADV_HUGEPAGE);
    }
#else
    (void)offset;
    (void)bytes;
#endif
}

void Memory::collapse(int64_t offset, int64_t bytes) const {
#if defined(__linux__)
    constexpr int collapse_advice = 25;  // MADV_COLLAPSE, since Linux 6.1; older headers lack its name
    const int64_t first = offset / huge_page_bytes * huge_page_bytes;
    (void)madvise(data_ + first, static_cast<size_t>(align_up(data_ + offset + bytes, huge_page_bytes) - (data_ + first)),
                  collapse_advice);
#else
    (void)offset;
    (void)bytes;
#endif
}

void Memory::release(int64_t first, int64_t end, int64_t free_first, int64_t free_end) const {
#if defined(__linux__)
    constexpr int advice = MADV_DONTNEED;
#else
    constexpr int advice = MADV_FREE;
#endif
    // data_ lies on a page.
    const int64_t page = page_bytes();
    const auto up = [page](int64_t offset) { return (offset + page - 1) / page * page; };
    const auto down = [page](int64_t offset) { return offset / page * page; };
    const int64_t from = std::max(down(first), up(free_first)), to = std::min(up(end), down(free_end));
    if (from < to) {
        (void)madvise(data_ + from, static_cast<size_t>(to - from), advice);
    }
}

Memory::~Memory() {
    if (reservation_) {
        munmap(reservation_, static_cast<size_t>(reserved_bytes_));
    }
}

#else

int64_t page_bytes() { return 4096; }

bool Memory::reserve(int64_t bytes) {
    constexpr int64_t cache_line = 64;
    reservation_ = std::calloc(static_cast<size_t>(bytes + cache_line), 1);
    data_ = reservation_ ? align_up(reservation_, cache_line) : nullptr;
    return reservation_ != nullptr;
}

void Memory::ask_for_huge_pages(int64_t, int64_t) const {}

void Memory::collapse(int64_t, int64_t) const {}

void Memory::release(int64_t, int64_t, int64_t, int64_t) const {}

Memory::~Memory() { std::free(reservation_); }

#endif

void Memory::commit(int64_t offset, int64_t bytes) const {
    const int64_t page = page_bytes();
    for (int64_t at = offset; at < offset + bytes; at = (at / page + 1) * page) {
        *static_cast<volatile std::byte *>(data_ + at) = std::byte{0};
    }
}

}  // namespace kvlane
