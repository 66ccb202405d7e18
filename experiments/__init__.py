"""The experiments behind the question: does a network do better with landmarks and HOG features?"""
